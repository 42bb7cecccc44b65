"""One typed section per stage. A recipe is data: numbers, names, lists; no class paths."""

from __future__ import annotations

from functools import reduce
from inspect import signature
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, create_model

from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import Fraction, LossTerm
from distil_nlp.objective.schedule import Curve, Schedule

LayerNumbers = Annotated[list[NonNegativeInt], Field(min_length=1)]
SeedList = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
StudentLayers = Literal["every_other", "first", "last", "random"] | LayerNumbers
FractionOrAll = Annotated[float, Field(gt=0, le=1)]
"""A share that may be all."""
TrainingFields = dict[str, Any]
"""Any fields of `transformers.TrainingArguments`; checked against them when the recipe is loaded."""


class Section(BaseModel):
    """Strict: an unknown key is a mistake, and so is a word, or true, where a number is meant."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


def section_class(annotation: Any) -> type[Section] | None:
    """Return the section in an annotation such as `CacheSection | None`, if there is one."""
    candidates = (annotation, *get_args(annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, Section)), None)


class CacheSection(Section):
    """Where the teacher's answers are kept; see `distil_nlp.teachers.cache.CacheConfig`."""

    folder: str = "runs/caches"
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    top_k: PositiveInt = 128
    mask_epochs: PositiveInt = 1


class TeacherSection(Section):
    """The model to learn from.

    `finetune: {}` trains it on this data first, once, with `training`'s own fields unless it names others;
    null uses it as it is. `reseed` trains one for each of `evaluation.seeds`. `cache: {}` keeps its answers on disk.
    `ensemble` names more teachers, whose logits are averaged with its own.
    """

    name: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    finetune: TrainingFields | None = None
    reseed: bool = False
    folder: str = "runs/teachers"
    ensemble: Annotated[list[str], Field(min_length=1)] | None = None
    cache: CacheSection | None = None


class StudentSection(Section):
    """The model to make. `name` starts from a checkpoint instead of the teacher's layers."""

    name: str | None = None
    revision: str | None = None
    architecture: Literal["same", "distilbert"] = "same"
    num_layers: PositiveInt | None = None
    layers: StudentLayers = "every_other"
    config: dict[str, Any] = {}


class MaskingSection(Section):
    """Dynamic masking: of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay."""

    probability: Fraction = 0.15
    whole_words: bool = False
    rare_token_power: Annotated[float, Field(ge=0)] = 0.0


class MixupSection(Section):
    """Rows mixed with another one; see `distil_nlp.data.augmentation.mixup.Mixup`."""

    share: FractionOrAll = 0.5
    alpha: Annotated[float, Field(gt=0)] = 0.4


class CutoffSection(Section):
    """Tokens that are not seen; see `distil_nlp.data.augmentation.cutoff.Cutoff`."""

    share: FractionOrAll = 1.0
    probability: Fraction = 0.1


class ReplacementSection(Section):
    """Further rows with other words, which `model`, or the teacher's own checkpoint, proposes; see
    `distil_nlp.data.augmentation.word_replacement.WordReplacement`."""

    copies: PositiveInt = 20
    probability: FractionOrAll = 0.4
    candidates: PositiveInt = 15
    model: Annotated[str, Field(min_length=1)] | None = None
    folder: str = "runs/augmented"


class AugmentationSection(Section):
    """What is made of the training rows, for the teacher to label."""

    mixup: MixupSection | None = None
    cutoff: CutoffSection | None = None
    replacement: ReplacementSection | None = None


class DataSection(Section):
    """The transfer set: `task: mlm` for text, a GLUE task, or `classification` / `regression` on named columns."""

    path: str = Field(min_length=1)
    name: str | None = None
    revision: str | None = None
    task: str
    text_columns: Annotated[list[str], Field(min_length=1, max_length=2)] | None = None
    label_column: str = "label"
    train_split: str = "train"
    evaluation_splits: list[str] | None = None
    held_out_share: Fraction = 0.02
    selection_share: Fraction = 0.1
    max_length: Annotated[int, Field(ge=8)] = 128
    pad_to_multiple_of: PositiveInt | None = None
    max_train_rows: PositiveInt | None = None
    max_evaluation_rows: PositiveInt | None = None
    streaming: bool = False
    shuffle_buffer: PositiveInt = 2000
    num_proc: PositiveInt | None = None
    masking: MaskingSection = MaskingSection()
    augmentation: AugmentationSection = AugmentationSection()


class Change(Section):
    """How a number changes from its start value to `end` over training."""

    shape: Curve
    end: Annotated[float, Field(ge=0)]


class PositiveChange(Change):
    """A change of a number that must stay above 0."""

    end: Annotated[float, Field(gt=0)]


class WeightSchedule(Section):
    weight: Change | None = None


class TermSection(Section):
    weight: Annotated[float, Field(ge=0)] = 1.0
    schedule: WeightSchedule = WeightSchedule()


def _term_section(term: type[LossTerm]) -> type[TermSection]:
    """What a recipe may say of a term: what its constructor takes, by the annotations there. An option that may be a
    `Schedule` is a number, which `schedule` lets change."""
    hints, options, schedules = get_type_hints(term.__init__, include_extras=True), {}, {}
    for option in list(signature(term.__init__).parameters.values())[1:]:
        if option.name == "weight":
            continue
        hint = hints[option.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if Schedule in kinds:
            schedules[option.name] = (PositiveChange | None, None)
        options[option.name] = (reduce(or_, (kind for kind in kinds if kind is not Schedule)), option.default)
    if schedules:
        changes = create_model("Schedule", __base__=WeightSchedule, **schedules)
        options["schedule"] = (changes, changes())
    return create_model(term.name, __base__=TermSection, **options)


class _Objective(Section):
    """The terms. One left out, or of weight 0, is not computed."""


ObjectiveSection = create_model(
    "ObjectiveSection",
    __base__=_Objective,
    **{name: (_term_section(term) | None, None) for name, term in TERMS.items()},
)


class BalanceSection(Section):
    """How terms are balanced against each other while training; see `objective.balancing.LossBalancer`."""

    kind: Literal["fixed", "uncertainty", "gradient_norm"] = "fixed"
    every: PositiveInt = 100
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9


class EvaluationSection(Section):
    """How scores are taken. `early_stopping_patience` counts evaluations without a better checkpoint.

    `seeds` is how many students are trained, with `training.seed` and the numbers after it, or a list of seeds.
    """

    seeds: PositiveInt | SeedList = 1
    baselines: list[Literal["no_distillation", "random_init", "copied_only"]] = []
    batch_size: PositiveInt = 32
    early_stopping_patience: PositiveInt | None = None


class HubSection(Section):
    repo_id: str | None = None
    push: bool = False
    private: bool = False


class RunSection(Section):
    """About this run, not about its result: not compared when a run is taken up again."""

    overwrite: bool = False
    gradients_every: PositiveInt | None = None


class Recipe(Section):
    """A whole run."""

    teacher: TeacherSection
    student: StudentSection = StudentSection()
    data: DataSection
    objective: ObjectiveSection
    balance: BalanceSection = BalanceSection()
    training: TrainingFields = {}
    evaluation: EvaluationSection = EvaluationSection()
    hub: HubSection = HubSection()
    run: RunSection = RunSection()
