"""A term: one thing the student matches, which rows and layers it looks at, and what it must see for that.

To add one: a file in `losses/` with the formula and a subclass of one of these classes, and a line in `terms.TERMS`.
What its constructor takes, by its annotations, is what a recipe may say of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from distil_nlp.models.architecture import feed_forward_width
from distil_nlp.objective.schedule import Schedule
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals
from distil_nlp.tasks import KINDS, TaskKind, task_kind
from distil_nlp.tasks.kind import Level, Output

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Bins = Annotated[int, Field(ge=2, le=1000)]
Count = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Weight = float | Schedule
Temperature = Positive | Schedule
RowSetName = Literal["masked", "all"] | Fraction
BlockNumber = Literal["embeddings"] | Annotated[int, Field(ge=0)]
LayerPair = Annotated[Sequence[BlockNumber], Field(min_length=2, max_length=2)]
LayerPairs = Literal["last", "uniform", "all", "skip", "middle"] | Annotated[list[LayerPair], Field(min_length=1)]
Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class ModelShape:
    """What a term must know of a model to pair its layers: depth, width, number of attention heads, which layers see a
    window only (ModernBERT), how many feed-forward units a block has, where the configuration tells, and how many
    classes a classifier has."""

    num_layers: int
    hidden_size: int
    num_heads: int
    layer_types: tuple[str, ...] | None = None
    feed_forward: int | None = None
    num_labels: int | None = None

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        types = getattr(config, "layer_types", None)
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
        return cls(
            *shape, tuple(types) if types else None, feed_forward_width(config), getattr(config, "num_labels", None)
        )


class LossTerm:
    """One thing the student matches.

    Args:
        weight: its factor in the loss, a number or a `Schedule`; 0 throughout switches the term off.

    A subclass sets `name` and what differs of the class attributes, and fills in `rows`, `request` and `sum`. What it
    returns is summed over `rows` and averaged over layer pairs, so that weights mean the same for one pair as for six.

    Attributes:
        name: in recipes and logs.
        needs_teacher: whether it looks at one.
        outputs: what a model's output may mean for it: a distribution over classes, or a number.
        levels: what a row of the logits may be for it: a token or a sequence.
        formula, formula_of_regression: for a reader of the model card; the latter where a number is predicted and it is
            another one.
        unit: of its values, for an axis.
        paper: its source on arXiv.
        why_not_balanced: why a balance by `uncertainty` cannot weigh it by its value; None where it can.
        uses_unlabelled_rows: whether it learns something of the teacher from rows without a label.
        accepts_cached_teacher: whether a teacher's answers from a cache will do.
        compares_samples: whether it is one value of all rows that the processes take at once, and of nothing less.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    formula_of_regression: ClassVar[str | None] = None
    unit: ClassVar[str]
    paper: ClassVar[str | None] = None
    why_not_balanced: ClassVar[str | None] = None
    uses_unlabelled_rows: ClassVar[bool] = True
    accepts_cached_teacher: ClassVar[bool] = True
    compares_samples: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    outputs: ClassVar[tuple[Output, ...]] = ("distribution", "number")
    levels: ClassVar[tuple[Level, ...]] = ("token", "sequence")

    def __init__(self, weight: Weight = 1.0):
        self.weight = as_schedule(weight)

    @classmethod
    def applies_to(cls, kind: TaskKind | str) -> bool:
        """Return whether the term has a meaning for a kind of task."""
        kind = task_kind(kind)
        return kind.output in cls.outputs and kind.level in cls.levels

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """Return the names of the kinds of task that the term has a meaning for."""
        return tuple(name for name, kind in KINDS.items() if cls.applies_to(kind))

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        """Called once with the models' shapes: pairs layers, checks that term and models fit.

        Raises:
            UserError: if they do not.
        """
        self.kind = task_kind(kind)

    def counted_rows(self) -> str:
        """The row set that it is divided by: `masked`, `all` or a share for tokens; `cls`, `sequences` or `labelled`
        for whole rows; `batch` for what is one value a micro-batch."""
        raise NotImplementedError

    def request(self, role: Role) -> SignalRequest:
        raise NotImplementedError

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        """Modules the term trains: name → (what it is called with, module); what it gives is
        `Signals.projected[name]`."""
        return {}

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        """Σ over the rows of this micro-batch. `batch` holds `input_ids`, `rows` and `labels`."""
        raise NotImplementedError


def as_schedule(value: float | Schedule) -> Schedule:
    return value if isinstance(value, Schedule) else Schedule(float(value))


def check_same_shape(
    student: Tensor,
    teacher: Tensor,
    meaning: str = "the same shape on both sides",
    names: tuple[str, str] = ("student", "teacher"),
) -> None:
    """Raises ValueError where the shapes differ."""
    if student.shape != teacher.shape:
        got = ", ".join(f"{name} {tuple(one.shape)}" for name, one in zip(names, (student, teacher), strict=True))
        raise ValueError(f"expected {meaning} / got {got}")
