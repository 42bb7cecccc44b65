"""The teacher: its origin, its scores, and answers in the data's columns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import model_validator

from distil_nlp.results.schema.base import Block, Metric, MetricValues, Number, described
from distil_nlp.results.schema.costs import ModelCost
from distil_nlp.results.schema.scores import ScoreInterval, SeedSummary


class TeacherCard(Block):
    """Metadata of the teacher's own model card, in that card's form."""

    license: Any = described("Licence.", absent="if the card does not have it")
    license_name: Any = described("Name of a licence that is not in the Hub's list.", absent="without such a licence")
    license_link: Any = described("Address or file of that licence.", absent="without such a licence")
    language: Any = described("Language code, or a list of them.", absent="if the card does not have it")
    base_model: Any = described(
        "The teacher's name on the Hub; for a local teacher, the base model that its card names.",
        absent="for a local teacher whose card names none",
    )


class TeacherClasses(Block):
    """The classes of the teacher's checkpoint, which are put in the data's order."""

    names: list[str] = described("The data's names of these classes, in the checkpoint's order.")
    told: Literal["names", "setting", "number", "id"] = described(
        "What told them: `names`, those in the checkpoint; `setting`, `data.label_names`; `number`, where the "
        "checkpoint has no names; `id`, where the data has none."
    )


class OthersScores(Block):
    """The ensemble without one of its teachers."""

    metrics: MetricValues = described("Scores; keys as in `teacher.metrics`.")
    interval: ScoreInterval = described("The headline metric, with its interval.")


class RowWeights(Block):
    """The weights of a teacher in the rows of the first evaluation split, as a step of training would have them."""

    mean: Number = described("Mean weight; those of all teachers sum to 1.")
    counts: list[int] = described("Rows by weight, in bins of equal width from 0 to 1.")


_WITH_GAPS = "for answers that some evaluation rows have not"


class TeacherScores(Block):
    """One teacher of an ensemble."""

    name: str = described("Name on the Hub, or a folder; words for answers in the data's columns.")
    revision: str | None = described("Commit on the Hub.", null="for a folder, and for answers")
    weight: float = described("Its weight in the recipe.")
    metrics: MetricValues = described("Its own scores; keys as in `teacher.metrics`.", absent=_WITH_GAPS)
    interval: ScoreInterval = described("Its headline metric, with its interval.", absent=_WITH_GAPS)
    without: OthersScores = described(
        "Scores of the ensemble without it.", absent="for `mlm`, and where no other model has a weight above 0"
    )
    row_weights: RowWeights = described("How much it counts in a row.", absent="for `mlm`")


_NO_MODEL = "where answers in the data's columns teach (`answers`)"


class Answers(Block):
    """Answers in the data's columns, which teach instead of a model (`teacher.columns`) or beside (`ensemble`)."""

    form: Literal["probabilities", "logits", "scores", "label"] = described("Form of the columns.")
    source: str | None = described("Who made them, by the recipe.", null="if it does not say")
    rows: int = described("Training rows.")
    answered: int = described(
        "Training rows with an answer; of the others labels alone are learnt, or the models' outputs."
    )
    training_score: Number = described(
        "The headline metric of the answers against the labels of training rows.", null="without rows that have both"
    )
    price: float | None = described(
        "Sum of the prices of the answers to all rows that the run reads, in the data's unit.",
        null="without `teacher.columns.price`",
    )
    scored: bool = described(
        "True if all evaluation rows have answers, which are then scored as the teacher. Without, there are no scores "
        "of a teacher, no retention and no fidelity."
    )


class Teacher(ModelCost):
    """The teacher: origin, size, inference cost and scores."""

    parameters: int = described("Parameters, tied ones counted once; of an ensemble, of all members.", absent=_NO_MODEL)
    encoder_parameters: int = described("Parameters of the encoder's layers.", absent=_NO_MODEL)
    embedding_parameters: int = described("Parameters of the embeddings.", absent=_NO_MODEL)
    size_mb: float = described("Weights in the model's dtype, in megabytes (10⁶ bytes).", absent=_NO_MODEL)
    answers: Answers = described(
        "Answers that teach; without a model that does, `name` is what the student was made of.", absent="for models"
    )
    name: str = described("Name on the Hub, or a folder.")
    ensemble: list[str] | None = described("Further teachers, whose outputs are mixed.", null="for one teacher")
    members: list[TeacherScores] = described("Each teacher of an ensemble, the first included.", absent="for one")
    revisions: dict[Annotated[str, "name"], str] = described(
        "Commit on the Hub of each teacher; teachers from a folder are not listed."
    )
    card: TeacherCard = described("Metadata of the teacher's model card.")
    metrics: MetricValues = described(
        "Scores, those of the mixture for several teachers (without labels, `correctness` weights are `confidence`; "
        "without a student, `student_uncertainty` ones are `fixed`), as fractions (`mlm`: `loss` in nats per masked "
        "token, and `perplexity`). Plain names are the first "
        "evaluation split; `<split>/<metric>` are added if several splits are scored.",
        absent="for answers that were not scored",
    )
    classes: TeacherClasses = described(
        "The classes of the teacher's checkpoint.",
        absent="for a teacher that was fine-tuned here, for several, and without classes",
    )
    seeds: dict[Metric, SeedSummary] = described(
        "Scores of the teacher of each seed.", absent="unless `teacher.reseed` trained one for each of several seeds"
    )

    @model_validator(mode="after")
    def _models_have_sizes_and_scores(self) -> Teacher:
        needed = (
            [] if self.answers else ["parameters", "encoder_parameters", "embedding_parameters", "size_mb", "metrics"]
        )
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"expected {', '.join(missing)} of a teacher that is a model")
        return self
