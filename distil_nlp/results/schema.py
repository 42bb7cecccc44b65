"""The schema of `results.json`: one pydantic model for each block, with the meaning of every key.

Reading does not use these models, so that files of older versions, and files that lack a part, can still be shown.
`docs/results_schema.md` is made from them (`make docs-schema`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA_VERSION = 2

Metric = Annotated[str, "metric"]
SplitName = Annotated[str, "split"]
ModelName = Annotated[str, "model"]
Term = Annotated[str, "term"]
FileName = Annotated[str, "file"]
"""Names of keys, which the schema page shows as <metric>, <split>, <model>, <term> and <file>."""

Number = float | None
"""A measured number; null stands for NaN or infinity, which JSON does not have."""
MetricValues = dict[Metric, Number]


def described(meaning: str, *, absent: str = "", null: str = "") -> Any:
    """Return a field with its meaning.

    Args:
        meaning: the quantity and its unit.
        absent: the case in which the key is missing; empty for a key that every file has.
        null: the case in which the value is null, other than a number that is not finite.
    """
    text = " ".join(filter(None, [meaning, absent and f"Absent {absent}.", null and f"Null {null}."]))
    default: Any = None if absent else ...
    extra: dict[str, Any] = {"meaning": meaning, "absent": absent, "null": null}
    return Field(default, description=text, json_schema_extra=extra)


class Block(BaseModel):
    """A block of `results.json`. Types are strict, and unknown keys are mismatches."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SeedSummary(Block):
    """One metric over all seeds. A value that is null counts as 0 in median, minimum and maximum."""

    seeds: list[int] = described("The seeds, in the order of `values`.")
    values: list[Number] = described("The metric of each seed.")
    median: float = described("Median over the seeds.")
    minimum: float = described("Smallest value.")
    maximum: float = described("Largest value.")


class GainSummary(Block):
    """Difference between the distilled student and a baseline, with a paired bootstrap interval."""

    metric: str = described("The headline metric, on the first evaluation split.")
    mean: Number = described("Mean over seeds of student − baseline, as a fraction (0.01 is a point).")
    low: Number = described("Lower end of the interval, as a fraction.")
    high: Number = described("Upper end of the interval, as a fraction.")
    level: float = described("Confidence level of the interval: 0.95.")
    resamples: int = described("Bootstrap resamples.")
    rows: int = described("Evaluation rows that were resampled; blocks of text for `mlm`.")
    seeds: int = described("Seeds compared. With one seed the interval covers the choice of rows alone.")
    outside_noise: bool = described("True if the interval does not contain 0.")


class DifferenceInterval(Block):
    """Difference between the distilled student and another model, with a paired bootstrap interval at 95 %."""

    mean: Number = described("Mean over seeds of student − model; below 0, the student is calibrated better.")
    low: Number = described("Lower end of the interval.")
    high: Number = described("Upper end of the interval.")


class CalibrationDifferences(Block):
    """Differences between the distilled student and another model in calibration."""

    ece: DifferenceInterval = described("Of the expected calibration error.")
    nll: DifferenceInterval = described("Of the negative log-likelihood.")


class ModelCalibration(Block):
    """Calibration of a model on the labelled rows of the first evaluation split, means over seeds.

    Of `multilabel` over each label of each row by itself, of `tokens` over the words that are read and have a tag.
    """

    ece: Number = described("Expected calibration error, a fraction, over 15 bins. Of few rows it is biased upwards.")
    nll: Number = described("Mean −log likelihood of the label, in nats.")
    difference: CalibrationDifferences = described(
        "What the student differs by.", absent="unless the model is the teacher or `no_distillation`"
    )


class ScoreInterval(Block):
    """Score of a model on the headline metric, with a bootstrap interval."""

    mean: Number = described("Mean over seeds, on the first evaluation split.")
    low: Number = described("Lower end of the interval.")
    high: Number = described("Upper end of the interval.")
    level: float = described("Confidence level of the interval: 0.95.")
    rows: int = described("Evaluation rows that were resampled; blocks of text for `mlm`.")
    seeds: int = described("Seeds. With one seed the interval covers the choice of rows alone.")


class ClassScores(Block):
    """Scores of a model on one class, as fractions; 0 where it never predicts the class."""

    precision: float = described("Precision.")
    recall: float = described("Recall.")
    f1: float = described("F1.")


class ClassBreakdown(Block):
    """One class; for `tokens` one type of entity."""

    name: str = described("Its name, or its number as text.")
    rows: int = described("Rows with this label; for `tokens` entities of this type, for `tags` words with this tag.")
    teacher: ClassScores = described("Scores of the teacher.")
    student: ClassScores = described("Scores of the student.")


class LengthBreakdown(Block):
    """The mean error on a quarter of the rows: the fraction of wrong rows, or the distance from the label."""

    shortest: int = described("Tokens of the shortest row, special tokens included.")
    longest: int = described("Tokens of the longest row.")
    rows: int = described("Number of rows.")
    teacher: float = described("Mean error of the teacher.")
    student: float = described("Mean error of the student.")


class Changes(Block):
    """Numbers of labelled rows, by which of the two models has them right."""

    both_right: int = described("Both.")
    lost: int = described("The teacher alone.")
    won: int = described("The student alone.")
    both_wrong: int = described("Neither.")


class Breakdown(Block):
    """Scores of the teacher and the run's own student on parts of the first evaluation split.

    The rows themselves are in `predictions.parquet`.
    """

    lengths: list[LengthBreakdown] = described(
        "Quarters of the rows, from short to long texts.", absent="for `tokens` and `tags`"
    )
    changes: Changes = described("Rows that are right or wrong.", absent="for regression, `tokens` and `tags`")
    classes: list[ClassBreakdown] = described("Classes, in the order of their ids.", absent="for regression")


class Thresholds(Block):
    """Thresholds of predictions, one of a model.

    Of `multilabel` it is the probability from which a row has a label. Of `qa_v2` a question has no answer where the
    score of none ([CLS] as start and end), minus that of the best answer, is above it; scores are sums of two logits.
    """

    rows: int | None = described(
        "Rows or questions to choose by (`data.selection_share`), on which each model’s has the highest F1.",
        null="without such rows; then it is 0.5, and 0 for `qa_v2`",
    )
    models: dict[ModelName, float] = described("Of `teacher`, `student` and each baseline, of the first seed.")


class Environment(Block):
    """Software and hardware of the run."""

    versions: dict[str, str | None] = described(
        "Versions of Python, this package, torch, transformers, accelerate, datasets, evaluate and numpy; null for a "
        "package that is not installed."
    )
    device: str = described("GPU name, or processor and number of cores.")
    threads: int = described("CPU threads of torch.")
    processes: int = described("Training processes.")
    commit: str | None = described("Git commit of this package.", null="if it does not run from a checkout")
    seed: int = described("Seed of the run's own student, whose weights are in `student/`.")


class Rows(Block):
    """Sizes of the data."""

    train: int | None = described("Training rows; blocks of tokens for `mlm`.", null="for a stream")
    labelled: int | None = described("Training rows with a label.", null="for `mlm`")
    evaluation: dict[SplitName, int] = described("Rows of each evaluation split, the first one first.")
    in_training: dict[SplitName, int] | None = described(
        "Rows of each evaluation split whose text is that of a training row; documents for `mlm`.",
        absent="in files of older versions",
        null="if they were not counted",
    )
    held_out: SplitName | None = described(
        "The split that was made of training rows (data.test_share), for data that has none to score on.",
        absent="in files of older versions",
        null="where the data has one",
    )


class OwnTerm(Block):
    """A loss term that is not the tool's own."""

    class_name: str = described("Name of its class.")
    formula: str = described("What it matches, in the words of its author.")
    formula_of_regression: str | None = described("Likewise for regression.", null="if it is the same")
    unit: str = described("Unit of its values.")
    paper: str | None = described("Number of its paper on arXiv.", null="if it names none")
    is_variant: bool = described("True if it is made after its paper, which has another loss.")


class OwnCode(Block):
    """A file or module of the user's own that was imported for the run (`plugins`)."""

    name: str = described("Path or module, as the recipe has it.")
    sha256: str = described("SHA-256 of the file.")
    imports: dict[FileName, str] = described(
        "Files beside it that it imports, by its import statements and theirs, and the SHA-256 of each.",
        absent="in files of older versions",
    )
    terms: dict[Term, OwnTerm] = described("The loss terms that it defines, used or not.")


class Data(Block):
    """Version of the data set."""

    revision: str | None = described("Commit of the data set on the Hub.", null="for local files")


class TokenizedRows(Block):
    """Rows of a split that models of several tokenizers read."""

    rows: int = described("All rows, each of which took part.")
    cut: int = described("Rows whose text was cut, where the first of the tokenizers comes to `data.max_length`.")
    tokens: int = described("Tokens of the student's, special ones included.", absent="in files of older versions")
    aligned: int = described(
        "Of these, those with tokens of the first other tokenizer on the same characters.",
        absent="in files of older versions",
    )
    words: int = described(
        "Words that have a label (`tokens`), or tokens that may be masked (`mlm`).",
        absent="unless outputs are of tokens",
    )
    matched: int = described(
        "Of these, those that both models read (`tokens`), or that are one token in both vocabularies (`mlm`).",
        absent="unless outputs are of tokens",
    )


class Tokenizers(Block):
    """The tokenizers of a run whose teacher reads other tokens than its student."""

    student: str = described("The model whose tokenizer the student has.")
    others: list[str] = described("Teachers that read other tokens.")
    rows: dict[Annotated[str, "train or split"], TokenizedRows] = described("Rows of training and of each split.")


class TokensOfTexts(Block):
    """What a tokenizer makes of texts."""

    unknown: float = described("Fraction of the tokens that are unknown.")
    tokens_per_word: float = described("Tokens ÷ words between spaces, special tokens left out.")


class SmallerVocabulary(Block):
    """The vocabulary of a student that knows some of its teacher's words (`student.vocabulary`)."""

    tokens: int = described("Tokens of the student.")
    of: int = described("Tokens of the model that it starts from.")
    coverage: float = described("Fraction of the tokens in the counted texts that the student knows.")
    texts: int = described("Training texts whose tokens were counted, at most 50,000 of them.")
    held_out_texts: int = described("Training texts that were not counted, and are measured on: about a twentieth.")
    teacher: TokensOfTexts | None = described("By the teacher's tokenizer.", null="without such texts")
    student: TokensOfTexts | None = described("By the student's.", null="without such texts")


class Latency(Block):
    """Time of an inference forward of a whole batch: one model in one setting."""

    p50: float = described("Median, in milliseconds.")
    p90: float = described("90th percentile, in milliseconds.", absent="in files of older versions")
    p99: float = described(
        "99th percentile, in milliseconds; of fewer than a hundred forwards it is close to the slowest.",
        absent="in files of older versions",
    )
    rows_per_second: float = described("Rows ÷ seconds, over all timed forwards.")
    forwards: int = described("Forwards that were timed.")
    jitter: float = described(
        "95th percentile of a forward's time ÷ the median time of the same batch. Above 1.5 the machine was busy with "
        "other work.",
        absent="if no batch was timed three times",
    )


class LatencySetting(Block):
    """Latencies of all models at one batch size, for inputs of the same lengths, with the same threads."""

    batch_size: int = described("Rows of a forward.")
    lengths: Literal["data", "max_length"] = described(
        "`data`: rows of the first evaluation split, drawn with a fixed seed, padded to the longest of their batch; "
        "`max_length`: rows of `max_length` random tokens, none of them padding."
    )
    tokens: float = described("Mean tokens of a row, without padding.")
    threads: int | None = described("CPU threads of torch.", null="on a GPU")
    models: dict[ModelName, Latency] = described(
        "Latencies of `teacher`, `student` and each of its exits; of exported models in `export.efficiency`."
    )


class ModelCost(Block):
    """Size and inference cost of a model. Latencies and conditions of the measurement are in `efficiency`."""

    parameters: int = described("Parameters, tied ones counted once; of an ensemble, of all members.")
    encoder_parameters: int = described("Parameters of the encoder's layers.")
    embedding_parameters: int = described("Parameters of the embeddings.")
    size_mb: float = described("Weights in the model's dtype, in megabytes (10⁶ bytes).")
    flops_per_token: float = described(
        "Floating-point operations of the matrix products of a forward of `efficiency.max_length` tokens, per token; a "
        "multiply-add counts 2.",
        absent="if `evaluation.efficiency` is `off`",
    )
    peak_memory_mib: float = described(
        "Weights plus the largest memory of a forward of the largest batch of `efficiency.max_length` tokens, in MiB "
        "(2²⁰ bytes).",
        absent="unless `evaluation.efficiency` is `full`",
    )


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


class PartsOfALayer(Block):
    """The sizes of a layer, before it was cut."""

    feed_forward: int | None = described("Feed-forward units.", null="if the family has none of its own")
    heads: int = described("Attention heads.")
    width: int = described("Features of the states.")


class ShapeBudget(Block):
    """What a student may cost."""

    name: str = described("Key of `student.budget`.")
    value: float = described("Its value in the recipe.")
    limit: float = described("The same in the unit of costs.")
    unit: str = described("What costs are counted in.")


class TriedShape(Block):
    """A shape that fits the budget and cannot grow."""

    layers: int = described("Depth.")
    heads: int = described("Attention heads of a layer.")
    units: int = described("Feed-forward units of a layer.")
    cost: float = described("In the budget's unit; of those that were tried, measured by themselves.")
    lost: float = described("Importance of the teacher's parts that it lacks.")
    distances: list[float] = described(
        "Mean distance of its outputs to the teacher's on training rows after each round of trial steps: KL in nats, "
        "or squared differences of numbers and vectors."
    )


class ShapeSearch(Block):
    """The search for the shape of a student (`student.budget`)."""

    budget: ShapeBudget = described("What the student may cost.")
    batch: int = described("Rows of the forward whose latency was measured.")
    length: int = described("Tokens of each row.")
    teacher_cost: float = described("What the teacher costs.")
    shapes: int = described("Shapes whose cost is known.")
    fitting: int = described("Those of them that fit.")
    candidates: list[TriedShape] = described("Those of these that cannot grow, the least loss of importance first.")
    chosen: TriedShape = described("The shape of the student.")


class PrunedStart(Block):
    """What a pruned student keeps of its teacher's layers, and its scores before it was repaired."""

    importance: str = described("Criterion by which parts were kept.")
    rows: int = described("Training rows that it was measured on, at most.")
    feed_forward: int | None = described("Feed-forward units of a layer.", null="if the family has none of its own")
    heads: int = described("Attention heads of a layer.")
    width: int = described("Features of the states.")
    of: PartsOfALayer = described("What the teacher's layers have.")
    cut: MetricValues = described(
        "Scores right after cutting; those after the repair are the baseline `copied_only`.",
        absent="if it was not repaired",
    )
    search: ShapeSearch = described("How its shape was found.", absent="without `student.budget`")
    repaired_on: int = described("Tokens that the repair was fitted to.", absent="if it was not repaired")


class Initialisation(Block):
    """Origin of the student's parameters before training."""

    teacher_layers: list[int] | None = described(
        "Teacher layer (0-based) that each student layer was copied from.", null="if no layers were copied"
    )
    copied: int = described("Number of tensors that were copied.")
    new: list[str] = described("Names of the tensors that were newly initialised.")
    dropped: list[str] = described(
        "Names of the teacher's tensors that found no place of their own, blocks that were left out aside.",
        absent="in runs of older versions",
    )
    checkpoint: str | None = described(
        "Checkpoint the student started from (`student.name`).", null="if it was built from the teacher"
    )
    revision: str | None = described("Commit of that checkpoint.", null="for a folder, or without a checkpoint")
    widened: int = described(
        "Number of copied tensors that are larger than the teacher's, by copies of its neurons.",
        absent="in runs of older versions",
    )
    logit_difference: float | None = described(
        "Of a student that is deeper or wider than its teacher: largest difference of their logits on a few tokens, "
        "before training.",
        null="for other students",
        absent="in runs of older versions",
    )
    start: str | None = described(
        "Whether that student starts as its teacher, and why not.",
        null="for other students",
        absent="in runs of older versions",
    )
    pruning: PrunedStart = described("What was kept of each layer.", absent="unless the student was pruned")


class Zeros(Block):
    """Weights of a pruned student that are zero (`student.sparsity`), counted in the saved weights."""

    weights: int = described("Weights of the linear layers of its blocks.")
    zeros: float = described("Fraction of these that are zero.")
    of_all: float = described("The same zeros, as a fraction of all parameters.")


class Student(ModelCost):
    """The run's own student, whose weights are in `student/`: initialisation, size, inference cost and scores."""

    metrics: MetricValues = described("Scores of these weights; keys as in `teacher.metrics`.")
    initialisation: Initialisation = described("Origin of the parameters before training.")
    sparsity: Zeros = described("Zeros among the weights.", absent="without `student.sparsity`")


class Exit(ModelCost):
    """An exit of the student (`student.exits`): a plain model of its first layers and a head of their own."""

    layers: int = described("Layers of the student before the exit.")
    folder: str = described("Folder of the model, within the run's.")
    metrics: MetricValues = described("Scores of these weights; keys as in `teacher.metrics`.")
    seeds: dict[Metric, SeedSummary] = described("Each metric over all seeds.", absent="in files of older versions")


class TrainedMember(Block):
    """One of several models that trained together."""

    layers: int = described("Its layers.")
    metrics: MetricValues = described("Scores; keys as in `teacher.metrics`.")
    selection: Number = described("Its headline metric on the rows to choose by.", absent="without such rows")
    initialisation: Initialisation = described("Origin of its parameters.")


class TrainedTogether(Block):
    """Models that trained together, one of which is the student in `student/`."""

    members: list[TrainedMember] = described("Each of them, the student as it was built first.")
    exported: int = described("Number of the one that is kept, from 1.")
    chosen_by: str = described("The metric on the rows to choose by, or `first` without such rows.")
    mean: MetricValues = described("Mean of their scores.")
    ensemble: MetricValues = described("Scores of the mean of their probabilities (regression: of their outputs).")


class MajorityBaseline(Block):
    """Scores that need no model."""

    metrics: MetricValues = described(
        "Scores on the first evaluation split of the majority class (classification), the mean of the training labels "
        "(regression), the most frequent labels (multi-label classification), the token frequencies (`mlm`) or the "
        "words that two texts share (ranking, embeddings)."
    )


class CopiedBaseline(Block):
    """The initialised student, before any training."""

    metrics: MetricValues = described("Scores; keys as in `teacher.metrics`.")
    gain: GainSummary = described("Gain of the distilled student over this baseline.")


class TrainedBaseline(CopiedBaseline):
    """A student trained for the same steps and seeds in another way."""

    metrics: MetricValues = described("Scores of the first seed; keys as in `teacher.metrics`.")
    seeds: dict[Metric, SeedSummary] = described("Each metric over all seeds.")


class Baselines(Block):
    """Students and constants that the distilled student is compared with."""

    majority: MajorityBaseline = described("Majority class, mean or token frequencies.")
    copied_only: CopiedBaseline = described("Initialised student, before training.")
    no_distillation: TrainedBaseline = described(
        "Student trained on labels only.", absent="unless `evaluation.baselines` has it"
    )
    random_init: TrainedBaseline = described(
        "Student distilled from random weights.", absent="unless `evaluation.baselines` has it"
    )
    plain: TrainedBaseline = described(
        "Student distilled without the training schemes, for as many steps.",
        absent="unless `evaluation.baselines` has it or `equal_compute`",
    )
    equal_compute: TrainedBaseline = described(
        "Student distilled without the training schemes, for as many operations as all stages took.",
        absent="unless `evaluation.baselines` has it",
    )


class SchemeUsed(Block):
    """A training scheme."""

    key: str = described("The recipe key that switches it on.")
    title: str = described("Its name.")
    paper: str | None = described("Number of its paper on arXiv.", null="where the sentence has it")
    sentence: str = described("What was done.")


class Compute(Block):
    """What trainings took, all together. The teacher's own is not among them."""

    steps: int = described("Optimiser steps.")
    seconds: float = described("Wall-clock seconds.")
    tokens: int = described("Tokens of the students' batches, without padding.")
    tokens_forward: int | None = described(
        "Tokens forward; see `training.tokens_forward`.",
        null="where a training of an older version is among them",
        absent="in files of older versions",
    )
    tokens_backward: int | None = described(
        "Tokens backward; see `training.tokens_backward`.",
        null="as `tokens_forward`",
        absent="in files of older versions",
    )
    flops: float | None = described(
        "Floating-point operations; see `training.flops`.", null="where those of a training could not be counted"
    )


class LinkUsed(Block):
    """A run whose student teaches: an assistant, or an earlier generation."""

    title: str = described("Its role.")
    folder: str = described("The folder of its run.")
    parameters: int = described("Parameters of its student.")
    encoder_parameters: int = described("Those of the encoder's layers.")
    metrics: MetricValues = described("Scores of its student; keys as in `teacher.metrics`.")
    steps: int = described("Optimiser steps of its training.")
    seconds: float = described("Wall-clock seconds of its training.")
    tokens: int = described("Tokens of its training.")
    tokens_forward: int | None = described(
        "Tokens forward in its training.", null="if they were not counted", absent="in files of older versions"
    )
    tokens_backward: int | None = described(
        "Tokens backward in its training.", null="if they were not counted", absent="in files of older versions"
    )
    flops: float | None = described("Floating-point operations of its training.", null="if they were not counted")


class SchemeCompute(Block):
    """What the trainings of one seed took."""

    all_stages: Compute = described("The run's own student and all links.")
    plain: Compute = described("The baseline `plain`.", absent="unless `evaluation.baselines` has it")
    equal_compute: Compute = described("The baseline `equal_compute`.", absent="unless `evaluation.baselines` has it")


class TrainLoss(Block):
    """Mean loss of both models on training rows, without dropout: a student far above its teacher under-fits."""

    rows: int = described("Number of training rows, drawn from all that have a label.")
    teacher: float = described("Of the teacher: nats for classes and masked tokens, squared error for numbers.")
    student: float = described("Of the student.")


class Schemes(Block):
    """The training schemes: who taught, and how often."""

    used: list[SchemeUsed] = described("The schemes of the recipe.")
    links: list[LinkUsed] = described("Runs whose students taught, in order.")
    compute: SchemeCompute = described("What the trainings took.")
    mean_of_generations: MetricValues = described(
        "Scores of the mean answers of all generations (of probabilities, for classes).",
        absent="unless `student.generations` is above 1",
    )
    train_loss: TrainLoss = described(
        "Loss on training rows, for advice on `student.augment`.",
        absent="without it, for streams, and for rows without labels",
    )


class BothNumbers(Block):
    """A number for each of the two models."""

    teacher: float = described("Value of the teacher.")
    student: float = described("Value of the student.")


class BothMatrices(Block):
    """A confusion matrix for each of the two models: true classes as rows, predicted classes as columns."""

    teacher: list[list[int]] = described("Counts of the teacher.")
    student: list[list[int]] = described("Counts of the student.")


Layer = int | Literal["embeddings"]


class LayerSimilarity(Block):
    """Linear CKA of the hidden states of every student layer with every teacher layer."""

    teacher_layers: list[Layer] = described("Teacher layers (0-based) and `embeddings`, the columns of `values`.")
    student_layers: list[Layer] = described("Student layers (0-based) and `embeddings`, the rows of `values`.")
    values: list[list[Number]] = described("CKA: 1 if equal up to rotation and scale, near 0 if unrelated.")
    tokens: int = described("Tokens compared.")


class Fidelity(Block):
    """Similarity of the student to the teacher on the first evaluation split."""

    rows: int = described(
        "Rows whose outputs are compared: all of the split; for `mlm`, `tokens` and `tags` at most 2,000, evenly "
        "spaced over it. For `qa` all questions."
    )
    agreement: float = described(
        "Fraction of rows (`mlm`: of masked tokens; `tokens` and `tags`: of words with a tag) on which both predict "
        "the same class, set of labels, or answer.",
        absent="for regression, ranking and embeddings",
    )
    kl: Number = described(
        "Mean KL(teacher ‖ student) in nats, at temperature 1; for `multilabel` summed over labels; for `qa` the "
        "mean of start and end, over at most 2,000 windows.",
        absent="for regression, ranking and embeddings",
    )
    tokens: int = described(
        "Masked tokens compared; words for `tokens` and `tags`.", absent="unless outputs are of tokens"
    )
    entity_f1: Number = described(
        "F1 of the student's entities where the teacher's are taken for the truth (strict IOB2).",
        absent="unless the task is `tokens`",
        null="if neither finds an entity",
    )
    ece: BothNumbers = described(
        "Expected calibration error, a fraction, over 15 bins.", absent="unless classification has labelled rows"
    )
    nll: BothNumbers = described(
        "Mean −log likelihood of the label, in nats.",
        absent="unless `classification`, `multilabel` or `tokens` has labelled rows, and in files of older versions",
    )
    confusion: BothMatrices = described(
        "Confusion matrices over labelled rows.", absent="unless classification has labelled rows"
    )
    pearson: Number = described(
        "Pearson correlation of student and teacher outputs.",
        absent="unless the task is regression",
        null="if an output is constant",
    )
    mean_absolute_difference: Number = described(
        "Mean |student − teacher| of the outputs, in the labels' unit.", absent="unless the task is regression"
    )
    cosine: float = described(
        "Mean cosine of the vectors of student and teacher.", absent="unless the task is embedding"
    )
    cosine_lowest: float = described("5th percentile of these cosines.", absent="unless the task is embedding")
    same_neighbour: Number = described(
        "Fraction of texts, at most 2,000, whose nearest other text is the same one for both models.",
        absent="unless the task is embedding",
        null="for a single text",
    )
    kendall_tau: Number = described(
        "Mean over queries of the rank correlation (Kendall's tau-b) of the scores of student and teacher.",
        absent="unless the task is ranking",
        null="if no query has two documents",
    )
    same_top: Number = described(
        "Fraction of queries whose first document is the same one for both models.",
        absent="unless the task is ranking",
        null="if no query has two documents",
    )
    cka: LayerSimilarity = described(
        "Similarity of layers.", absent="if fewer than 4 tokens were evaluated, or it could not be measured"
    )
    cka_not_measured: str = described(
        "Why the layers could not be compared: a model that does not show its states.", absent="if they could"
    )


class Efficiency(Block):
    """Latencies of teacher and student, and the conditions of the cost measurement."""

    device: str = described("GPU name, or processor and number of cores.")
    dtype: Literal["float32", "bfloat16"] = described("Precision of the forward; bfloat16 is autocast.")
    max_length: int = described(
        "Tokens of the longest inputs: `data.max_length`, or fewer where a model has fewer positions."
    )
    warm_up: int = described("Forwards of each model in a setting before the timed ones.")
    seconds: float = described("Seconds that the measurement took.", absent="in files of older versions")
    latency: list[LatencySetting] = described("Latencies, setting by setting, in the order in which they were timed.")
    left_out: int = described(
        "Settings that were left out because the time was over.", absent="in files of older versions"
    )


class ExportSettings(Block):
    """The section `export` of the recipe, as it was when the student was exported."""

    onnx: bool = described("Whether the run itself exported its student.")
    int8: Literal["dynamic", "static", "off"] = described("The int8 copy that was asked for.")
    int8_layers: Literal["all", "feed_forward"] = described("What of it is int8.")
    reduce_range: bool | None = described("Weights of 7 bits.", null="for what the machine needs")
    calibration_rows: int = described("Training rows for `static`.")
    gate: float = described("Share of the ONNX model's headline score that the int8 copy must keep.")
    latency: Literal["full", "quick", "off"] = described("How long the models were timed.")


class Int8Copy(Block):
    """How the int8 copy was made."""

    method: Literal["dynamic", "static"] = described("Ranges of activations: taken in each forward, or calibrated.")
    layers: Literal["all", "feed_forward"] = described("What of it is int8.")
    reduce_range: bool = described("True for weights of 7 bits.")
    calibration_rows: int | None = described("Training rows that ranges were taken from.", null="for `dynamic`")


class ExportGate(Block):
    """What the int8 copy keeps of the ONNX model's headline score on the first evaluation split."""

    threshold: float = described("The share that it must keep (`export.gate`).")
    kept: Number = described("The share that it keeps.", null="unless the ONNX model's score is above 0")
    passed: bool = described("True if that is enough: only then `push-to-hub` uploads it.")


class ExportedModel(Block):
    """Size and scores of the teacher, the student, the ONNX model (`onnx`) or its int8 copy (`int8`)."""

    size_mb: float = described(
        "Of `onnx` and `int8` the file, of the others the weights, in megabytes (10⁶ bytes).",
        absent="for a teacher that is no model",
    )
    file: FileName = described("The file, within `student/`.", absent="for teacher and student")
    sha256: str = described("SHA-256 of the file.", absent="for teacher and student")
    metrics: MetricValues = described(
        "Scores; keys as in `teacher.metrics`. The teacher's are those of the run; the student was scored again, on "
        "the CPU in float32.",
        absent="for answers that were not scored",
    )
    retention: float = described("Headline score ÷ the teacher's.", absent="for the teacher, or without its score")
    fidelity: dict[Annotated[str, "measure"], Number] = described(
        "How alike the predictions are to the student's, on the first evaluation split; keys as in `fidelity`, with "
        "the student in the teacher's place: `agreement` is the fraction of equal predictions.",
        absent="for teacher and student",
    )


class ExportResults(Block):
    """The exported student: `onnx/` in its folder."""

    settings: ExportSettings = described("How it was asked for.")
    versions: dict[str, str | None] = described("Versions of onnx, onnxscript, onnxruntime, torch and transformers.")
    exporter: Literal["transformers", "torch"] = described("What traced the student.")
    inputs: list[str] = described("Inputs of the graph, each (batch, sequence).")
    outputs: list[str] = described("Outputs of the graph.")
    difference: float = described(
        "Largest difference of the graph's outputs to the student's, relative to the largest of these, over random "
        "tokens of three shapes with padding."
    )
    int8: Int8Copy | None = described("The int8 copy.", null="without one")
    gate: ExportGate | None = described("Its gate.", null="without an int8 copy")
    models: dict[ModelName, ExportedModel] = described("`teacher`, `student`, `onnx` and `int8`.")
    efficiency: Efficiency | None = described(
        "Latencies on the CPU of these models, which took turns; without a teacher that is not at hand any more.",
        null="if `export.latency` is `off`",
    )


class HistoryEntry(Block):
    """One log entry of training (`loss`), of an evaluation during training (`eval_loss`), or of the probe.

    Further keys, by the names of the objective's terms and the task's metrics: `<term>`, the mean of a term per step
    since the last entry, before its weight; `<term>_weight`, where weights change; `replacing_rate`, where
    `student.replacing` is set: the probability with which a student's layer ran itself in the last step; `wider_loss`,
    where `student.augment` is set: mean loss of the wider net over its steps since the last entry, before its weight;
    `pruned_share`, where `student.sparsity` is set: fraction of the weights of the blocks' linear layers that are zero;
    `gradient_norm/<term>` and `gradient_cosine/<term>/<term>`, where `run.gradients_every` is set: norms of the
    weighted terms' gradients at the student's last hidden state, and cosines between them; `eval_<metric>` and
    `eval_<term>` in an evaluation.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: MetricValues

    step: int = described("Optimiser step.")
    epoch: float = described("Epochs so far.", absent="if the length is not known")
    loss: Number = described("Mean loss since the last entry.", absent="in an evaluation, or of the probe")
    grad_norm: Number = described(
        "Norm of the gradient of all parameters before clipping.", absent="in an evaluation, or if it is not clipped"
    )
    learning_rate: float = described("Learning rate.", absent="in an evaluation")
    eval_loss: Number = described("Loss on the selection split.", absent="outside of evaluations")
    probe_accuracy: Number = described(
        "Accuracy of the linear probe, a fraction; at step 0 of the initialised student.", absent="in other entries"
    )

    @model_validator(mode="after")
    def _names_are_documented(self) -> HistoryEntry:
        unknown = [name for name in self.__pydantic_extra__ if not _HISTORY_KEY.fullmatch(name)]
        if unknown:
            raise ValueError(f"expected names of terms, weights, gradients and metrics, got {', '.join(unknown)}")
        return self


_HISTORY_KEY = re.compile(r"\w+|gradient_norm/\w+|gradient_cosine/\w+/\w+")


class Probe(Block):
    """A linear probe of the run's own student while it trained (`evaluation.probe`); its scores are in `history`."""

    task: str = described("A GLUE task, or `classification`.")
    train_rows: int = described("Rows that the logistic regression learns from.")
    scored_rows: int = described("Rows that it is scored on.")
    pooling: Literal["mean", "cls"] = described("How the states of a text's tokens become its features.")
    majority: float = described("Accuracy of the most frequent class, a fraction.")
    teacher: Number = described("Accuracy on features of the teacher, the first of several.")


class Energy(Block):
    """Energy of a training, as codecarbon measured it, or estimated it where the machine does not tell.

    It is of the whole machine of the main process, other programs included, while the run's own student trained.
    """

    kwh: float = described("Kilowatt-hours: of CPU, GPUs and memory together.")
    cpu_kwh: float = described("Those of the CPU.")
    gpu_kwh: float = described("Those of the GPUs.")
    ram_kwh: float = described("Those of the memory.")
    co2_kg: float | None = described(
        "Kilograms of CO₂ equivalent, by the mean of the country's electricity.", null="if the country is not known"
    )
    country: str | None = described("Its ISO code, of three letters.", null="if it is not known")
    codecarbon: str = described("Version of codecarbon.")


class Training(Block):
    """Training of the run's own student."""

    seconds: float = described("Wall-clock seconds, interrupted legs included.")
    tokens: int = described("Tokens of all processes, without padding, each row once each time it is drawn.")
    tokens_forward: int | None = described(
        "Tokens that went forward through models, without padding, each time that one read them: the student in all "
        "its passes, teachers where they ran, and models that trained together; parts of a model count as their share "
        "of the student's blocks. Evaluations and the filling of a cache are left out.",
        absent="in files of older versions",
        null="if resumed from a checkpoint of an older version",
    )
    tokens_backward: int | None = described(
        "Those of them that went backward too, once each.",
        absent="in files of older versions",
        null="as `tokens_forward`",
    )
    flops: float | None = described(
        "Floating-point operations of the matrix products of all models, forwards and backwards: those of the first "
        "micro-batch per token, times `tokens`; those of the wider nets of `student.augment` by their own tokens.",
        absent="in files of older versions",
        null="where they cannot be counted: `torch_compile`, FSDP, DeepSpeed, the term `input_gradient`",
    )
    energy: Energy | None = described(
        "Energy and carbon.",
        absent="in files of older versions",
        null="unless `training.report_to` has codecarbon, and where training carried on from a checkpoint",
    )
    tokens_per_second: Number = described("Tokens per second.")
    steps: int = described("Optimiser steps taken.")
    max_steps: int = described("Optimiser steps planned; early stopping may take fewer.")
    resumed_from: str | None = described("Checkpoint that training carried on from.", null="if not interrupted")
    peak_memory_mib: float = described(
        "Peak memory of the main process in MiB: allocated on the GPU, or resident on the CPU."
    )
    compiled_graphs: int = described("Graphs that torch.compile made.", absent="unless `torch_compile` is set")
    final_terms: dict[Term, Number] = described("Each term of the loss at the last log, before its weight.")
    best_checkpoint: str | None = described(
        "Checkpoint with the best selection metric.", null="if checkpoints were not compared (`load_best_model_at_end`)"
    )
    probe: Probe = described("The linear probe.", absent="unless `evaluation.probe` is set")
    history: list[HistoryEntry] = described("Log entries in order.")


class Results(Block):
    """All figures of a finished run."""

    schema_version: Literal[2] = described("Version of this schema.")
    recipe: dict[str, Any] = described("The recipe with its defaults; see [recipes](recipes.md).")
    own_code: list[OwnCode] | None = described(
        "Code of the user's own (`plugins`).", absent="in files of older versions", null="without any"
    )
    environment: Environment = described("Software and hardware.")
    task: str = described("A GLUE task, `classification`, `multilabel`, `regression`, `ranking` or `mlm`.")
    headline: str = described("The headline metric, which retention and gains are taken on.")
    labels: list[str] | None = described(
        "Class names in the order of their ids, as the student has them.", null="if it has none but LABEL_0 and so on"
    )
    rows: Rows = described("Sizes of the data.")
    data: Data = described("Version of the data.")
    tokenizers: Tokenizers = described(
        "Tokenizers of teacher and student, and how alike their texts are.",
        absent="where teacher and student have one vocabulary",
    )
    vocabulary: SmallerVocabulary = described(
        "The student's vocabulary.", absent="unless `student.vocabulary` makes it smaller"
    )
    teacher: Teacher = described("The teacher; its scores are the first seed's where each seed has one.")
    student: Student = described("The run's own student, of the first seed.")
    exits: list[Exit] = described(
        "Exits of the run's own student, from the first; their latencies are in `efficiency`, as `exit_<layers>`.",
        absent="unless `student.exits` has some",
    )
    peers: TrainedTogether = described("The run's own student and its peers.", absent="unless `student.peers` has some")
    branches: TrainedTogether = described(
        "The run's own student, as each of its branches makes it.", absent="unless `student.branches` has some"
    )
    seeds: dict[Metric, SeedSummary] = described("Each metric of the distilled student over all seeds.")
    baselines: Baselines = described("Baselines.")
    intervals: dict[Annotated[str, "model"], ScoreInterval] = described(
        "Score of `teacher`, `student` and each baseline that is a model, with its interval.",
        absent="in files of older versions",
    )
    calibration: dict[Annotated[str, "model"], ModelCalibration] = described(
        "Calibration of `teacher`, `student` and each baseline that is a model.",
        absent="unless classification has labelled rows, and in files of older versions",
    )
    thresholds: Thresholds = described(
        "Thresholds of predictions.", absent="unless the task is `multilabel` or `qa_v2`"
    )
    breakdown: Breakdown = described(
        "Scores of parts of the first evaluation split.", absent="for `mlm`, and in files of older versions"
    )
    retention: float | None = described(
        "Median student ÷ median teacher on the headline metric, a fraction.",
        null="unless the teacher's is above 0, and where the two predict words of unlike vocabularies",
    )
    retention_above_majority: float | None = described(
        "(student − majority) ÷ (teacher − majority) on the headline metric, medians over seeds.",
        null="unless the teacher is above the majority baseline",
    )
    fidelity: Fidelity = described(
        "Similarity of the student to the teacher.", absent="for answers in the data's columns that were not scored"
    )
    efficiency: Efficiency | None = described(
        "Latencies, and the conditions of the cost measurement.", null="if `evaluation.efficiency` is `off`"
    )
    export: ExportResults = described("The exported student.", absent="unless it was exported")
    training: Training = described("Training of the run's own student.")
    schemes: Schemes = described("The training schemes.", absent="for plain distillation")


def schema_mismatches(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each place at which `results` (as JSON has them) differs from the schema."""
    try:
        Results.model_validate(results)
    except ValidationError as error:
        return [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors(include_url=False)]
    return []
