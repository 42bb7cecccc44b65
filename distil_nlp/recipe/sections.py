"""The schema of a recipe: one typed section for each part of a run.

A recipe is data: numbers, names and lists. Code is run for `plugins` alone, which name files or modules of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from inspect import Parameter, signature
from operator import or_
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.functional_serializers import SerializerFunctionWrapHandler

from distil_nlp.kernels.fallback import Kernels
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import Fraction, LossTerm
from distil_nlp.objective.schedule import Curve, Schedule
from distil_nlp.recipe.plugins import Plugin
from distil_nlp.teachers.mixing import Mix, Weighting

LayerNumbers = Annotated[list[NonNegativeInt], Field(min_length=1)]
_Path = Annotated[str, Field(min_length=1)]
_Paths = Annotated[list[_Path], Field(min_length=1)]
SeedList = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
StudentLayers = Literal["every_other", "first", "last", "important", "random", "stack", "interpolate"] | LayerNumbers
FractionOrAll = Annotated[float, Field(gt=0, le=1)]
"""A fraction above 0, at most 1."""
TrainingFields = dict[str, Any]
"""Fields of `transformers.TrainingArguments`, which are checked when the recipe is loaded."""


class Section(BaseModel):
    """A strict section: an unknown key is a mistake, and so is a string, or true, in place of a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


def section_class(annotation: Any) -> type[Section] | None:
    """Return the section in an annotation such as `CacheSection | None` or `list[ShapeSection]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_class, get_args(annotation))), None)


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


class VocabularySection(Section):
    """A smaller vocabulary, of the tokens that the training text needs most; one of the two keys.

    Special tokens, single characters or bytes, and what longer tokens are merged of are always kept, so that any text
    can be read.

    Attributes:
        keep: tokens that the student has at most.
        coverage: the most frequent tokens that are this fraction of the text.
    """

    keep: PositiveInt | None = None
    coverage: FractionOrAll | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.keep is None) == (self.coverage is None):
            raise ValueError("one of keep (a number of tokens) and coverage (a fraction of the text)")
        return self


class PruningSection(Section):
    """A student cut from the important parts of its teacher, and repaired before its first step.

    Feed-forward units, and the width with its heads, are cut to the same number in each layer, as transformers needs
    it. See `distil_nlp.models.pruning.importance` for the criteria, which need no labels.

    Attributes:
        feed_forward: fraction of the feed-forward units that stay.
        width: fraction of the attention heads that stay, and with them of the features of the states.
        importance: what stays: the most important parts by `fisher`, `taylor`, `obd` (Optimal Brain Damage) or
            `activation`, or any of them, by `random`. `student.layers=important` goes by it too.
        rows: training rows that importance is measured on.
        repair: fit each block's output to the teacher's by least squares before the first step.
        folder: parent folder of what was measured, which other runs with the same teacher and rows use again.
    """

    feed_forward: FractionOrAll = 1.0
    width: FractionOrAll = 1.0
    importance: Literal["fisher", "taylor", "obd", "activation", "random"] = "fisher"
    rows: PositiveInt = 2000
    repair: bool = True
    folder: str = "runs/importance"


class BudgetSection(Section):
    """What a student may cost; its shape is searched for. One of the first five keys.

    Attributes:
        latency_ms: median milliseconds of a forward, on this machine and device.
        latency: the same, as a fraction of the teacher's.
        parameters: fraction of the teacher's parameters.
        flops: fraction of the operations of the teacher's forward.
        size_mb: megabytes (10⁶ bytes) of the weights in float32.
        batch: rows of the forward whose latency is measured.
        length: tokens of each row, none of them padding.
        threads: threads of a CPU; all of the process if null.
        tries: shapes that are trained for a while, those of most importance among the ones that fit.
        steps: optimiser steps of the first round of these; each round has half as many shapes and twice as many steps.
    """

    latency_ms: Annotated[float, Field(gt=0)] | None = None
    latency: FractionOrAll | None = None
    parameters: FractionOrAll | None = None
    flops: FractionOrAll | None = None
    size_mb: Annotated[float, Field(gt=0)] | None = None
    batch: PositiveInt = 1
    length: PositiveInt = 128
    threads: PositiveInt | None = None
    tries: PositiveInt = 4
    steps: PositiveInt = 50

    @property
    def limit(self) -> tuple[str, float]:
        """The name of the cost, and its limit."""
        return next((name, value) for name in _BUDGETS if (value := getattr(self, name)) is not None)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in _BUDGETS) != 1:
            raise ValueError(f"one of {', '.join(_BUDGETS)}")
        return self


StudentPart = Literal["embeddings", "layers", "head"]
_BUDGETS = ("latency_ms", "latency", "parameters", "flops", "size_mb")


class ShapeSection(Section):
    """The shape of a model that is made of the teacher.

    Attributes:
        architecture: the teacher's classes, or DistilBERT's for a BERT teacher.
        num_layers: depth; by default half the teacher's, or the number of copied layers. May be above the teacher's.
        layers: teacher layers (from 0) to copy, or `important` for those of most importance by `student.pruning`, or
            `random` for random weights throughout. `stack` and `interpolate` repeat all of them, for a student deeper
            than its teacher.
        config: fields of the model's configuration to change, such as `hidden_size`. A wider student's neurons are
            copies of the teacher's; see `distil_nlp.models.widening`.
    """

    architecture: Literal["same", "distilbert"] = "same"
    num_layers: PositiveInt | None = None
    layers: StudentLayers = "every_other"
    config: dict[str, Any] = {}


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


def _as_kind(value: Any) -> Any:
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
        dtype: its precision; `auto` is bfloat16 where the student trains with `training.bf16`, else float32.
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
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
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
    cache: CacheSection | None = None
    checkpoints: Annotated[list[FractionOrAll], Field(min_length=2), AfterValidator(_route)] | None = None
    self: Annotated[
        SelfSection | None, BeforeValidator(_as_kind, json_schema_input_type=_SelfKind | SelfSection | None)
    ] = None
    columns: ColumnsSection | None = None

    @property
    def answers(self) -> ColumnsSection | None:
        """The columns with answers, of the teacher itself or of a member of the ensemble."""
        return self.columns or next((one.columns for one in self.ensemble or () if one.columns), None)


class ReplacingSection(Section):
    """Module replacing: the teacher's layers run in place of the student's; see `distil_nlp.training.replacing`.

    Attributes:
        start: probability with which a student's layer runs itself, at the first step.
        full_at: fraction of training over which that rises to 1.
    """

    start: Annotated[float, Field(ge=0, le=1)] = 0.3
    full_at: FractionOrAll = 0.6


class AugmentSection(Section):
    """Network augmentation: a wider net trains around the student; see `distil_nlp.training.netaug`.

    Attributes:
        ffn: factors of the number of feed-forward units of the wider net, of which each step draws one; a step with 1
            is one of the student alone.
        until: fraction of the steps from which on the student trains alone.
        weight: weight of the wider net's loss beside the student's own.
    """

    ffn: Annotated[list[Annotated[float, Field(ge=1, le=8)]], Field(min_length=1)] = [1.0, 2.0]
    until: Annotated[float, Field(ge=0, le=1)] = 0.5
    weight: Annotated[float, Field(gt=0)] = 1.0


def _pattern(value: str) -> str:
    """Return a pattern N:M, which must keep fewer weights than there are."""
    kept, _, among = value.partition(":")
    if not (kept.isdecimal() and among.isdecimal() and 0 < int(kept) < int(among)):
        raise ValueError("N:M, the number kept of M neighbours, N below M, such as 2:4")
    return value


class SparsitySection(Section):
    """Weights of the blocks' linear layers become zero; see `distil_nlp.training.sparsity`. A number is `share`.

    Attributes:
        share: fraction of zeros in each layer in the end; or
        pattern: N weights that are kept of M neighbours along the input dimension, such as `2:4`.
        by: `magnitude` drops the smallest weights (Zhu & Gupta), `movement` those that training moved towards zero
            most (Sanh et al.).
        start, end: fractions of training between which the zeros grow from none to all, fast at first.
        every: steps between two choices of the weights to drop.
    """

    share: Fraction | None = None
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    by: Literal["magnitude", "movement"] = "magnitude"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.1
    end: FractionOrAll = 0.7
    every: PositiveInt = 10

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if (self.share is None) == (self.pattern is None):
            raise ValueError("one of share (a fraction) and pattern (such as 2:4)")
        if self.start >= self.end:
            raise ValueError("a start below the end")
        return self


class QuantizationSection(Section):
    """Quantisation-aware training: embeddings and blocks compute as their int8 copies will.

    See `distil_nlp.training.fake_quantization`.

    Attributes:
        start: fraction of training from which on they do; in evaluation always.
        reduce_range: weights of 7 bits, as with `export.reduce_range`.
    """

    start: Annotated[float, Field(ge=0, lt=1)] = 0.5
    reduce_range: bool = False


class ExitsSection(Section):
    """Exits of the student, each a smaller student; a list is `after` with defaults for the rest.

    Attributes:
        after: numbers of blocks after which there is an exit; the student's own depth is one anyway.
        alpha: share that an exit learns from the student's own output; the rest is the objective's terms on outputs.
        temperature: T of what it learns from there.
        hint: factor of the squared distance of an exit's [CLS] state to the last block's.
    """

    after: Annotated[list[PositiveInt], Field(min_length=1)]
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 3.0
    hint: Annotated[float, Field(ge=0)] = 0.0


class PeerSection(Section):
    """The shape of a peer; what is left out is as in the student.

    Attributes:
        num_layers, layers, config: see `StudentSection`.
    """

    num_layers: PositiveInt | None = None
    layers: StudentLayers | None = None
    config: dict[str, Any] | None = None


class PeersSection(Section):
    """Students that train together and learn from each other; a number or a list alone is `models`.

    Attributes:
        models: the number of all peers, the student the first of them; or the shapes of the others.
        weight: factor of what each learns from the others.
        temperature: T of that.
        ramp: `linear` or `cosine` to let that factor grow from 0 over the training.
    """

    models: Annotated[int, Field(ge=2, le=8)] | Annotated[list[PeerSection], Field(min_length=1, max_length=7)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    ramp: Curve = "constant"


class BranchesSection(Section):
    """Branches over a shared trunk, with a gate that weighs them; a number alone is `models`.

    Attributes:
        models: the number of branches, the student's own last blocks the first of them.
        blocks: number of blocks of a branch; those before are the trunk.
        weight: factor of what each branch learns from all of them, weighed by the gate.
        temperature: T of that.
        ramp: `linear` or `cosine` to let that factor grow from 0 over the training.
    """

    models: Annotated[int, Field(ge=2, le=8)]
    blocks: PositiveInt = 1
    weight: Annotated[float, Field(gt=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 3.0
    ramp: Curve = "constant"


def _short_form(section: type[Section], key: str) -> BeforeValidator:
    """Return a validator that takes a section's most important value for the section."""
    return BeforeValidator(
        lambda value: value if isinstance(value, dict | Section | None) else {key: value},
        json_schema_input_type=reduce(or_, (section.model_fields[key].rebuild_annotation(), section, NoneType)),
    )


class StudentSection(ShapeSection):
    """The student: its shape, or a checkpoint.

    Attributes:
        name: a checkpoint to start from instead of the teacher's layers: a folder, or a name on the Hub.
        revision: commit, branch or tag of that checkpoint.
        fresh: parts that start from random weights instead of the teacher's: `embeddings`, `layers`, `head` (with the
            pooler).
        vocabulary: know the words alone that the training text needs; the teacher keeps all of its own.
        pruning: keep the important parts of each layer alone; `{}` takes the defaults, which cut nothing.
        budget: what it may cost; depth, heads and units are found by importance and short trainings.
        generations: number of students of this shape, each of which teaches the next one; the last is the run's own.
            The runs of the others are in `teacher.folder`.
        ema: upper limit of the decay of an exponential moving average of its weights over the steps of training, which
            is evaluated and saved in their place; see `distil_nlp.training.ema.WeightAverage`.
        replacing: let each layer stand in for a group of the teacher's by chance, more and more often; `{}` takes the
            defaults.
        augment: train a wider net around it too, which shares its weights; `{}` takes the defaults.
        sparsity: set weights of its blocks to zero as training goes on, for good.
        quantization: train embeddings and blocks as they will compute in int8; `{}` takes the defaults.
        exits: exits within the student, which train together with it and become students of their own.
        peers: students that train together with this one, which all learn from each other; the best is kept.
        branches: copies of its last blocks that train together over the shared others; the best is kept.
    """

    name: str | None = None
    revision: str | None = None
    fresh: list[StudentPart] = []
    vocabulary: VocabularySection | None = None
    pruning: PruningSection | None = None
    budget: BudgetSection | None = None
    generations: PositiveInt = 1
    ema: Fraction | None = None
    replacing: ReplacingSection | None = None
    augment: AugmentSection | None = None
    sparsity: Annotated[SparsitySection | None, _short_form(SparsitySection, "share")] = None
    quantization: QuantizationSection | None = None
    exits: Annotated[ExitsSection | None, _short_form(ExitsSection, "after")] = None
    peers: Annotated[PeersSection | None, _short_form(PeersSection, "models")] = None
    branches: Annotated[BranchesSection | None, _short_form(BranchesSection, "models")] = None


class MaskingSection(Section):
    """Dynamic masking for `mlm`: 80 % of the chosen tokens become [MASK], 10 % a random token, 10 % stay.

    Attributes:
        probability: fraction of the ordinary tokens of a block that is chosen; 0 to mask none in training, where no
            term reads masked tokens. Scores are taken at 0.15 then.
        whole_words: choose words instead of tokens.
        spans: choose spans of adjacent words instead, of 1 to 10 words (SpanBERT).
        rare_token_power: choose rare tokens more often, by count^−power; DistilBERT: 0.7.
    """

    probability: Annotated[float, Field(ge=0, lt=1)] = 0.15
    whole_words: bool = False
    spans: bool = False
    rare_token_power: Annotated[float, Field(ge=0)] = 0.0


class MixupSection(Section):
    """Mixtures of the embeddings of two rows; see `distil_nlp.data.augmentation.mixup.Mixup`.

    Attributes:
        share: fraction of the rows that are mixed, drawn in each epoch.
        alpha: of the distribution Beta(α, α) of the coefficients λ and 1 − λ.
    """

    share: FractionOrAll = 0.5
    alpha: Annotated[float, Field(gt=0)] = 0.4


class CutoffSection(Section):
    """Tokens hidden from both models; see `distil_nlp.data.augmentation.cutoff.Cutoff`.

    Attributes:
        share: fraction of the rows with hidden tokens, drawn in each epoch.
        probability: of each token of such a row; [CLS] and separators stay.
    """

    share: FractionOrAll = 1.0
    probability: Fraction = 0.1


class ReplacementSection(Section):
    """Copies of rows with replaced words; see `distil_nlp.data.augmentation.word_replacement.WordReplacement`.

    Attributes:
        copies: further rows for each row.
        probability: of each word of a copy to be replaced.
        candidates: number of likeliest words from which the new word is drawn.
        model: masked language model that proposes words; by default the teacher's own checkpoint.
        folder: parent folder of the rows.
    """

    copies: PositiveInt = 20
    probability: FractionOrAll = 0.4
    candidates: PositiveInt = 15
    model: Annotated[str, Field(min_length=1)] | None = None
    folder: str = "runs/augmented"


class AugmentationSection(Section):
    """Augmentation of the training rows of a task, without labels: the teacher's outputs replace them.

    Each part is off unless it is named; `{}` takes its defaults.

    Attributes:
        mixup: mixtures of two rows.
        cutoff: rows with hidden tokens, which keep their labels.
        replacement: copies of rows with replaced words.
    """

    mixup: MixupSection | None = None
    cutoff: CutoffSection | None = None
    replacement: ReplacementSection | None = None


def _as_list(value: Any) -> Any:
    """Return a single name as a list of one."""
    return [value] if isinstance(value, str) else value


_NAME_AS_LIST = BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None)
"""Takes a single name for a list of one."""


class DataSection(Section):
    """The transfer set, the data of distillation.

    Attributes:
        path: a name on the Hub, a folder in the layout of a Hub repository, or a file; or a list of files, or
            split → files.
        name: configuration of the dataset; by default the GLUE task.
        revision: commit, branch or tag of the dataset.
        task: `mlm` for text, a GLUE task, or a kind of task (`classification`, `multilabel`, `regression`, `tokens`,
            `qa`, `embedding`, `ranking`) on named columns.
        text_columns: one column, or two for pairs; for `tokens` a column of lists of words; for `ranking` those of the
            query and of the document.
        label_column: rows labelled −100, NaN or null learn from the teacher alone. For `multilabel` a column of lists,
            for `tokens` one of lists of tags; for `qa` of answers as SQuAD has them; for embeddings, the scores of
            pairs; for `ranking` the relevance of a document, 0 or 1, or grades from 0 on.
        label_columns: for `multilabel`, columns of 0 and 1 instead, one for each label.
        label_separator: for `multilabel`, what stands between the labels of a row where the label column has strings.
        group_column: for `ranking`, the column that tells which rows are of one query; by default the query itself.
        group_size: for `ranking`, most documents of a query that an epoch reads; all of them share a batch.
        pooling: for embeddings, how a teacher without a sentence-transformers folder makes a vector of its tokens'
            states; `mean` by default.
        normalize: likewise, whether its vectors have length 1; true by default.
        label_names: the names of the data's classes in the order of the teacher's, where its own do not tell the order.
        train_split: split to train on.
        evaluation_splits: splits to report scores on; by default the task's own.
        test_share: for data of one's own without a split to score on, the fraction of the labelled rows that is.
        held_out_share: for `mlm` without a validation split, the fraction of documents held out.
        selection_share: where training evaluates, the fraction of training rows split off to choose a checkpoint by.
        max_length: tokens of an input; blocks of `mlm` have exactly this length.
        stride: for `qa`, tokens that two windows of a long context have in common.
        pad_to_multiple_of: for tasks, pad batches to a multiple of this length, so that they have few shapes.
        max_train_rows: upper limit of training rows, drawn with a fixed seed.
        share: fraction of the training rows (after that limit) that is kept, for a fine-tuned teacher too; a larger one
            has all rows of a smaller one, and labels keep their proportion.
        max_evaluation_rows: upper limit of rows of each evaluation split.
        streaming: for `mlm`, read the corpus while training; needs `training.max_steps`.
        shuffle_buffer: blocks of a stream in memory, from which the next one is drawn.
        num_proc: processes that tokenise.
        masking: masking for `mlm`.
        augmentation: changes of the training rows of a task.
    """

    path: _Path | _Paths | Annotated[dict[str, _Path | _Paths], Field(min_length=1)]
    name: str | None = None
    revision: str | None = None
    task: str
    text_columns: Annotated[list[str], _NAME_AS_LIST, Field(min_length=1, max_length=2)] | None = None
    label_column: str = "label"
    label_columns: Annotated[list[str], _NAME_AS_LIST, Field(min_length=2)] | None = None
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    group_column: str | None = None
    group_size: Annotated[int, Field(ge=2)] = 8
    pooling: Literal["mean", "cls", "max"] | None = None
    normalize: bool | None = None
    label_names: Annotated[list[str | int], Field(min_length=2)] | None = None
    train_split: str = "train"
    evaluation_splits: Annotated[list[str], _NAME_AS_LIST] | None = None
    test_share: Fraction = 0.2
    held_out_share: Fraction = 0.02
    selection_share: Fraction = 0.1
    max_length: Annotated[int, Field(ge=8)] = 128
    stride: Annotated[int, Field(ge=0)] = 128
    pad_to_multiple_of: PositiveInt | None = None
    max_train_rows: PositiveInt | None = None
    share: FractionOrAll = 1.0
    max_evaluation_rows: PositiveInt | None = None
    streaming: bool = False
    shuffle_buffer: PositiveInt = 2000
    num_proc: PositiveInt | None = None
    masking: MaskingSection = MaskingSection()
    augmentation: AugmentationSection = AugmentationSection()


class Change(Section):
    """A change of a number from its start value to `end` over training.

    Attributes:
        shape: curve of the change.
        end: value at the last step.
    """

    shape: Curve
    end: Annotated[float, Field(ge=0)]


class PositiveChange(Change):
    """A change of a number that must stay above 0."""

    end: Annotated[float, Field(gt=0)]


class WeightSchedule(Section):
    """Schedules of a term.

    Attributes:
        weight: change of its weight; constant if null.
    """

    weight: Change | None = None


class TermSection(Section):
    """Settings of a term.

    Attributes:
        weight: factor of the term in the loss.
        schedule: changes of its settings over training.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    schedule: WeightSchedule = WeightSchedule()


def term_section(term: type[LossTerm]) -> type[TermSection]:
    """Return the section of a term, with the parameters of its constructor and their annotations.

    A parameter that may be a `Schedule` is a number in the recipe, and `schedule` may change it.
    """
    hints = get_type_hints(term.__init__, include_extras=True)
    options: dict[str, Any] = {}
    schedules: dict[str, Any] = {}
    for option in list(signature(term.__init__).parameters.values())[1:]:
        if option.name == "weight":
            continue
        hint = hints[option.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if Schedule in kinds:
            schedules[option.name] = (PositiveChange | None, None)
        default = ... if option.default is Parameter.empty else option.default
        options[option.name] = (reduce(or_, (kind for kind in kinds if kind is not Schedule)), default)
    if schedules:
        changes = create_model("Schedule", __base__=WeightSchedule, **schedules)
        options["schedule"] = (changes, changes())
    return create_model(term.name, __base__=TermSection, **options)


class ObjectiveBase(Section):
    """The terms of the loss, by name. A term that is left out, or has weight 0, is not computed."""


def objective_section(terms: Mapping[str, type[LossTerm]]) -> type[Section]:
    """Return the section `objective` with a key for each of these terms."""
    sections: dict[str, Any] = {name: (term_section(term) | None, None) for name, term in terms.items()}
    return create_model("ObjectiveSection", __base__=ObjectiveBase, **sections)


if TYPE_CHECKING:
    ObjectiveSection = ObjectiveBase
else:
    ObjectiveSection = objective_section(TERMS)


class BalanceSection(Section):
    """Balancing of the terms during training; see `distil_nlp.objective.balancing.LossBalancer`.

    Attributes:
        kind: method; `fixed` for none.
        every: steps between two measurements of gradients, for `gradient_norm`.
        decay: of the running means.
    """

    kind: Literal["fixed", "uncertainty", "gradient_norm"] = "fixed"
    every: PositiveInt = 100
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9


class ProbeSection(Section):
    """A linear probe of the student while it is distilled; see `distil_nlp.evaluation.linear_probe.LinearProbe`.

    Attributes:
        path: a small labelled set, as `data.path`.
        name: configuration of the dataset; by default the GLUE task.
        revision: commit, branch or tag of the dataset.
        task: `classification`, or a GLUE task of classes.
        text_columns: one column, or two for pairs; for `classification`.
        label_column: likewise.
        pooling: how the last layer's states of a text become its features.
        every: steps between two scores.
        max_rows: of the rows to learn from, and of those to score on.
    """

    path: _Path | _Paths | Annotated[dict[str, _Path | _Paths], Field(min_length=1)]
    name: str | None = None
    revision: str | None = None
    task: str = "classification"
    text_columns: Annotated[list[str], _NAME_AS_LIST, Field(min_length=1, max_length=2)] | None = None
    label_column: str = "label"
    pooling: Literal["mean", "cls"] = "mean"
    every: PositiveInt = 500
    max_rows: Annotated[int, Field(ge=2)] = 1000


class EvaluationSection(Section):
    """Seeds, baselines and scores.

    Attributes:
        seeds: number of students, with `training.seed` and the numbers after it as seeds; or a list of seeds.
        baselines: further students to compare with: trained on labels only, from random weights, or not trained; for
            a training scheme also distilled without it, for the same steps (`plain`) or for as many as take the same
            operations (`equal_compute`).
        batch_size: rows of a forward.
        early_stopping_patience: evaluations without a better checkpoint before training stops; null for no limit.
        efficiency: how much of latency, operations and memory is measured at the end: `full` (about a minute), `quick`
            (seconds) or `off`.
        compare_layers: compare the layers of teacher and student (CKA), besides their outputs.
        show_rows: keep the texts of the evaluation rows in the run's folder, and show some in `report.html`.
        probe: for `mlm`: a linear probe of the student every so many steps.
    """

    seeds: PositiveInt | SeedList = 1
    baselines: list[Literal["no_distillation", "random_init", "copied_only", "plain", "equal_compute"]] = []
    batch_size: PositiveInt = 32
    early_stopping_patience: PositiveInt | None = None
    efficiency: Literal["full", "quick", "off"] = "full"
    compare_layers: bool = True
    show_rows: bool = True
    probe: ProbeSection | None = None


class MultitaskSection(Section):
    """Several tasks at once, where `data` is a list: one encoder, and a head for each task.

    Attributes:
        sampling_power: a step's task is drawn with a probability that grows with its number of training rows to this
            power: 1 for as often as it has rows, 0 for all tasks alike.
        tasks: names of all tasks, in their order; filled in from the list.
        task: the name of the task whose recipe this is; likewise.
    """

    sampling_power: Annotated[float, Field(ge=0, le=1)] = 0.75
    tasks: list[str] = []
    task: str | None = None


class HubSection(Section):
    """Upload of the student to the Hugging Face Hub.

    Attributes:
        repo_id: repository, such as `me/my-student`.
        push: whether to upload, unless the student is no better than a guess.
        private: whether a new repository is private.
    """

    repo_id: str | None = None
    push: bool = False
    private: bool = False


class ExportSection(Section):
    """Export of the student to ONNX, after the run or by `distil-nlp export`; see `distil_nlp.pipeline.export`.

    Attributes:
        onnx: whether the run exports its student at its end.
        int8: an int8 copy: `dynamic` takes ranges of activations in each forward, `static` calibrates them on training
            rows, `off` makes none.
        int8_layers: what becomes int8: `all` products with weights, or those of the `feed_forward` layers alone; the
            embeddings in either case.
        reduce_range: weights of 7 bits, for x86 processors without VNNI; null for what this machine needs.
        calibration_rows: training rows for `static`.
        gate: share of the ONNX model's headline score that the int8 copy must keep to be published.
        latency: how long teacher, student and the exported models are timed: `full` (about a minute), `quick`
            (seconds) or `off`.
    """

    onnx: bool = False
    int8: Literal["dynamic", "static", "off"] = "dynamic"
    int8_layers: Literal["all", "feed_forward"] = "all"
    reduce_range: bool | None = None
    calibration_rows: PositiveInt = 64
    gate: Annotated[float, Field(ge=0)] = 0.99
    latency: Literal["full", "quick", "off"] = "full"


class RunSection(Section):
    """Settings that do not change the student, and may differ when a run resumes.

    Attributes:
        overwrite: move an earlier run in the output folder to `<folder>.previous`.
        gradients_every: steps between two measurements of gradient norms and gradient conflict; null for none.
        accept_weak_teacher: distil a teacher that scores no better than a guess too.
        report: write `report.html` and its plots at the end; `distil-nlp make-report` writes them later.
        outputs_folder: keep the outputs of models that are not trained here (the teacher, the untrained copy) on the
            evaluation rows in this folder, so that further runs need not ask again; null for none.
        kernels: what computes the losses on a vocabulary and `attention_kl`: `torch`; `triton`, kernels of our own on a
            GPU; or `auto`, Triton where it is there.
    """

    overwrite: bool = False
    gradients_every: PositiveInt | None = None
    accept_weak_teacher: bool = False
    report: bool = True
    outputs_folder: _Path | None = None
    kernels: Kernels = "torch"


SELF_OBJECTIVES: Mapping[str, dict[str, Any]] = {
    "last_epoch": {"soft_target_cross_entropy": {}},
    "ema": {"hard_label": {}, "logit_mse": {}},
    "checkpoints": {"hard_label": {}, "logit_mse": {}},
    "pretrained": {"hard_label": {}, "soft_target_kl": {}},
}
"""`teacher.self.kind` → the objective of its paper, which a recipe without `objective` has."""


def _with_objective(settings: Any) -> Any:
    """Return a recipe's settings with the objective of `teacher.self` where they have none."""
    if not isinstance(settings, dict) or "objective" in settings or not isinstance(settings.get("teacher"), dict):
        return settings
    own = _as_kind(settings["teacher"].get("self"))
    kind = own.get("kind") if isinstance(own, dict) else None
    objective = SELF_OBJECTIVES.get(str(kind))
    return settings if objective is None else settings | {"objective": objective}


def _with_start(settings: Any) -> Any:
    """Return a recipe's settings with `student.name` as `teacher.name`, where columns teach and no teacher is named."""
    if not isinstance(settings, dict):
        return settings
    teacher, student = settings.get("teacher"), settings.get("student")
    if not isinstance(teacher, dict) or not isinstance(student, dict) or not teacher.get("columns"):
        return settings
    if "name" in teacher or not student.get("name"):
        return settings
    start = {key: student[key] for key in ("name", "revision") if key in student}
    return settings | {"teacher": {**teacher, **start}}


class Recipe(Section):
    """The settings of a run.

    Attributes:
        plugins: Python files, or modules, whose loss terms `objective` may name; imported when the recipe is loaded.
        teacher: the model to learn from.
        student: the model to train.
        data: transfer set and evaluation splits.
        multitask: several tasks at once; the recipe is then that of one of them.
        objective: terms of the loss; with `teacher.self`, by default those of its paper.
        balance: balancing of the terms.
        training: any fields of `transformers.TrainingArguments`.
        evaluation: seeds, baselines and scores.
        export: the student as ONNX files.
        hub: upload of the student.
        run: settings that do not change the student.
        terms: the terms that `objective` may name: the tool's own, and those of the plugins.
        imported: the plugins.
    """

    terms: ClassVar[Mapping[str, type[LossTerm]]] = TERMS
    imported: ClassVar[tuple[Plugin, ...]] = ()

    plugins: Annotated[list[Annotated[str, Field(min_length=1)]], _NAME_AS_LIST] = []
    teacher: TeacherSection
    student: StudentSection = StudentSection()
    data: DataSection
    multitask: MultitaskSection = MultitaskSection()
    objective: ObjectiveSection
    balance: BalanceSection = BalanceSection()
    training: TrainingFields = {}
    evaluation: EvaluationSection = EvaluationSection()
    export: ExportSection = ExportSection()
    hub: HubSection = HubSection()
    run: RunSection = RunSection()

    @model_validator(mode="before")
    @classmethod
    def fill_objective(cls, settings: Any) -> Any:
        """Fill in the objective of `teacher.self`, and the start of a student that columns teach."""
        return _with_start(_with_objective(settings))
