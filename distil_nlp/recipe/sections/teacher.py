"""The section `teacher`: the model to learn from, several of them, answers in columns, or the student itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_serializer, model_validator
from pydantic.functional_serializers import SerializerFunctionWrapHandler

from distil_nlp.objective import Fraction
from distil_nlp.recipe.sections.base import FractionOrAll, Section, TrainingFields
from distil_nlp.recipe.sections.shape import ShapeSection
from distil_nlp.teachers.mixing import Mix, Weighting


class CacheSection(Section):
    """The cache of teacher outputs for the training rows; see `distil_nlp.teachers.cache.CacheConfig`.

    Attributes:
        folder: parent folder of all caches.
        dtype: precision on disk.
        top_k: for `mlm`, likeliest words that are kept for each token; the others are kept as one tail probability.
        mask_epochs: epochs whose masks and sampled tokens are kept; later epochs repeat them.
    """

    folder: str = "runs/caches"
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    top_k: PositiveInt = 128
    mask_epochs: PositiveInt = 1


_SelfKind = Literal["last_epoch", "ema", "checkpoints", "pretrained"]


class SelfSection(Section):
    """The student as its own teacher; a word in place of the section is its `kind`.

    Attributes:
        kind: `last_epoch`: its predictions of the epoch before, mixed with the labels (PS-KD); see
            `distil_nlp.teachers.last_epoch.LastEpochTeacher`. `ema` and `checkpoints`: averages of its own weights, the
            moving one over all steps (Mean Teacher), or the mean of the last checkpoints (SDA); see
            `distil_nlp.teachers.averaged`. `pretrained`: a student of its own shape and start, trained on labels only
            (Tf-KD); its run is in `teacher.folder`.
        alpha: for `last_epoch`, share of the predictions in the targets of the last epoch; it grows linearly from epoch
            to epoch.
        decay: for `ema`, decay of the average in a step.
        count: for `checkpoints`, number of checkpoints in the mean.
        every: for `checkpoints`, steps between two of them.
    """

    kind: _SelfKind
    alpha: FractionOrAll = 0.8
    decay: Fraction = 0.99
    count: PositiveInt = 5
    every: PositiveInt = 1


def as_self_teacher(value: Any) -> Any:
    """Return a word as a section of that kind."""
    return {"kind": value} if isinstance(value, str) else value


def _route(fractions: list[float]) -> list[float]:
    """Return the fractions of a training; they must grow, and end with the whole of it."""
    if fractions != sorted(set(fractions)) or fractions[-1] != 1:
        raise ValueError("fractions that grow and end with 1.0")
    return fractions


_Classes = (
    Annotated[str, Field(min_length=1)]
    | Annotated[list[str], Field(min_length=2)]
    | Annotated[dict[str, str], Field(min_length=2)]
)


class ColumnsSection(Section):
    """Columns of the data with answers that were made elsewhere; see `distil_nlp.data.answers.AnswerColumns`.

    One of `probabilities`, `logits`, `scores` and `label` is named. Null marks a row without an answer.

    Attributes:
        probabilities: a column of lists (in the data's order of classes) or of dicts by class name; or a column for
            each class: a list in the data's order, or class name → column. For `multilabel` of each label.
        logits: likewise, of logits.
        scores: for regression, the column of numbers.
        label: for classification, the column of labels, by name or id.
        confidence: with `label`, the column with the label's probability, or one for all rows; the other classes share
            the rest equally.
        price: a column of what each answer cost; the sum is told.
        source: who made the answers, for report and model card.
    """

    probabilities: _Classes | None = None
    logits: _Classes | None = None
    scores: Annotated[str, Field(min_length=1)] | None = None
    label: Annotated[str, Field(min_length=1)] | None = None
    confidence: Annotated[str, Field(min_length=1)] | FractionOrAll = 0.9
    price: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @property
    def forms(self) -> list[str]:
        """The keys that name columns of answers."""
        return [name for name in ("probabilities", "logits", "scores", "label") if getattr(self, name) is not None]


class TeacherMember(Section):
    """A further teacher of an ensemble: a model (a plain name is one of weight 1), or answers in the data's columns.

    Attributes:
        name: a folder, or a name on the Hub.
        revision: commit, branch or tag on the Hub.
        columns: columns of the data with answers, in place of a name; once in an ensemble.
        weight: how much it counts beside the others; 0 to score it without learning from it.
    """

    name: Annotated[str, Field(min_length=1)] | None = None
    revision: str | None = None
    columns: ColumnsSection | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _is_one_teacher(self) -> TeacherMember:
        if (self.name is None) == (self.columns is None):
            raise ValueError("a teacher with a name, or with columns of the data")
        if self.name is None and self.revision is not None:
            raise ValueError("no revision beside columns, which are the data's own")
        return self

    @model_serializer(mode="wrap")
    def _shortest(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """Return a plain name where nothing else is set."""
        settings = serialize(self)
        if settings == {"name": self.name, "revision": None, "columns": None, "weight": 1.0}:
            return settings["name"]
        return {key: value for key, value in settings.items() if key not in ("name", "revision", "columns") or value}


def member_name(member: str | Mapping[str, Any]) -> str | None:
    """Return the name of an entry of `teacher.ensemble` as a recipe or `results.json` has it; None for answers."""
    return member if isinstance(member, str) else member.get("name")


def _as_member(value: Any) -> Any:
    """Return a plain name as the settings of a teacher."""
    return {"name": value} if isinstance(value, str) else value


_Member = Annotated[TeacherMember, BeforeValidator(_as_member, json_schema_input_type=str | TeacherMember)]


class TeacherSection(Section):
    """The teacher.

    Attributes:
        name: a folder, or a name on the Hub.
        revision: commit, branch or tag on the Hub.
        dtype: its precision; `auto` is the half precision of `training.bf16` or `training.fp16`, else float32.
        finetune: fields of `TrainingArguments` to train it on this data first, once. Batch size, precision, optimiser
            and sampling are those of `training` unless named here. `{}` takes the defaults; null uses it as it is.
        finetune_when: `untrained` leaves a teacher as it is if its checkpoint has a head for this kind of task.
        reseed: fine-tune a teacher for each of `evaluation.seeds`.
        folder: parent folder of fine-tuned teachers.
        ensemble: further teachers, whose outputs are mixed with its own; one may be answers in the data's columns.
        weight: how much the first teacher counts beside those of `ensemble`.
        mix: what of their outputs is averaged: `logits` (a geometric mean of distributions) or `probabilities`.
        weighting: what a teacher's weight in a row follows besides: `fixed` for nothing, `confidence` (its entropy),
            `correctness` (its cross-entropy with the label) or `student_uncertainty` (the student's entropy); see
            `distil_nlp.teachers.mixing`.
        assistants: shapes of models between teacher and student, the largest first: each is distilled from the one
            before, and the last one teaches the student. Their runs are in `folder`.
        guided: `last` for a student (and assistants) taught by the assistant before alone, `dense` by the teacher and
            all assistants before.
        drop: with `dense`, the probability with which each of these is left out of a step.
        start: what the student (and each assistant) is made of: the `teacher`, or the `assistant` before, so that
            weights come down the chain as answers do.
        cache: keep its outputs for the training rows on disk; `{}` takes the defaults.
        checkpoints: fractions of its fine-tuning, such as `[0.25, 0.5, 1.0]`, at which the teacher is kept; each of
            these teaches for an equal share of the student's steps (RCO). Needs `finetune`.
        self: the student teaches itself, in the way that `kind` says. The teacher is then what the student starts from,
            and is scored beside it.
        columns: columns of the data with answers, which teach instead of a model. `name` is then what students are made
            of alone: it needs no head, and is neither fine-tuned nor scored. It may be left out with `student.name`.
    """

    name: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    finetune: TrainingFields | None = None
    finetune_when: Literal["always", "untrained"] = "always"
    reseed: bool = False
    folder: str = "runs/teachers"
    ensemble: Annotated[list[_Member], Field(min_length=1)] | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    mix: Mix = "logits"
    weighting: Weighting = "fixed"
    assistants: Annotated[list[ShapeSection], Field(min_length=1)] | None = None
    guided: Literal["last", "dense"] = "last"
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    start: Literal["teacher", "assistant"] = "teacher"
    cache: CacheSection | None = None
    checkpoints: Annotated[list[FractionOrAll], Field(min_length=2), AfterValidator(_route)] | None = None
    self: Annotated[
        SelfSection | None, BeforeValidator(as_self_teacher, json_schema_input_type=_SelfKind | SelfSection | None)
    ] = None
    columns: ColumnsSection | None = None

    @property
    def answers(self) -> ColumnsSection | None:
        """The columns with answers, of the teacher itself or of a member of the ensemble."""
        return self.columns or next((one.columns for one in self.ensemble or () if one.columns), None)
