"""`LossTerm`: the base class of all loss terms, with the types of their arguments.

To add a term: a file in `losses/` with the formula and a subclass of a base class, and a line in
`losses.registry.TERMS`. The arguments of its constructor, with their annotations, are its keys in a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field
from torch import Tensor, nn

from distil_nlp.errors import UserError
from distil_nlp.objective.schedule import Schedule
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals
from distil_nlp.tasks import KINDS, TaskKind, task_kind
from distil_nlp.tasks.kind import ALIGNED, OUTPUT_MEANINGS, Level, Output

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Bins = Annotated[int, Field(ge=2, le=1000)]
Count = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Weight = float | Schedule
Temperature = Positive | Schedule
RowSetName = Literal["masked", "labelled", "all"] | Fraction
BlockNumber = Literal["embeddings"] | Annotated[int, Field(ge=0)]
LayerPair = Annotated[Sequence[BlockNumber], Field(min_length=2, max_length=2)]
LayerPairs = Literal["last", "uniform", "all", "skip", "middle"] | Annotated[list[LayerPair], Field(min_length=1)]
Role = Literal["teacher", "student"]
NeededLabels = Literal["labels", "pairs"]
"""Labels of some training rows, or documents of unlike relevance for some query."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that terms need to pair its layers.

    Attributes:
        num_layers: number of blocks.
        hidden_size: width.
        num_heads: attention heads of a block.
        layer_types: attention type of each block, if they differ: some of ModernBERT's attend to a window only.
        feed_forward: feed-forward units of a block, if the configuration has them.
        num_labels: classes of a classifier.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    layer_types: tuple[str, ...] | None = None
    feed_forward: int | None = None
    num_labels: int | None = None

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """Return the sizes in a model's configuration.

        Raises:
            UserError: if it does not have them (Perceiver).
        """
        needed = ("num_hidden_layers", "hidden_size", "num_attention_heads")
        missing = [name for name in needed if not hasattr(config, name)]
        if missing:
            raise UserError(
                None,
                "a configuration with layers, width and heads",
                f"{type(config).__name__} without {', '.join(missing)}",
                why="its layers cannot be paired with another model's",
                fix="take an encoder such as BERT, RoBERTa or ELECTRA",
            )
        from distil_nlp.models.architecture import feed_forward_width  # imports transformers; recipes need terms alone

        types = getattr(config, "layer_types", None)
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
        return cls(
            *shape, tuple(types) if types else None, feed_forward_width(config), getattr(config, "num_labels", None)
        )


class LossTerm:
    """A term of the objective: a loss, summed over rows.

    A subclass sets `name` and the class attributes that differ, and implements `counted_rows`, `request` and `sum`. Its
    value is a sum over rows, averaged over layer pairs, so that a weight has the same meaning for any number of pairs.

    Args:
        weight: factor in the loss, a number or a `Schedule`; 0 throughout training switches the term off.

    Attributes:
        name: name in recipes and logs.
        needs_teacher: True if the term uses signals of a teacher.
        outputs: the meanings of a model's output that the term is defined for (`TaskKind.output`); all of them, unless
            it reads the output.
        levels: the rows of logits that the term is defined for: tokens, sequences.
        formula, formula_of_regression: the formula in words, for the model card; the latter for regression, if it
            differs.
        formulas: output → the formula in words, for further outputs for which it differs.
        unit: unit of the values, for an axis.
        paper: number of its paper on arXiv.
        is_variant: True if the term is made after its paper, which has another loss; see the docstring of the term.
        why_not_balanced: the reason why balancing by `uncertainty` cannot use the term's value; None if it can.
        uses_unlabelled_rows: True if the student learns from the teacher on rows without a label.
        without_labels: what to do where no training row has a label and the term needs some, besides leaving it out.
        accepts_cached_teacher: True if cached teacher outputs are sufficient.
        compares_samples: True if the value is defined only for all rows of all processes together.
        compares_passes: True if the student reads each training batch twice for the term, with other dropout each
            time; in evaluation, which has one pass, the term has no rows.
        aligned_only: True if the teacher reads other tokens; see `Objective.aligned_only`.
        samples_text: True if the student reads, beside each batch, its rows with the teacher's draws in masked places
            (`batch["is_replaced"]`), whose `ordinary` rows the term sees.
    """

    aligned_only: bool = False

    name: ClassVar[str]
    formula: ClassVar[str]
    formula_of_regression: ClassVar[str | None] = None
    formulas: ClassVar[Mapping[Output, str]] = {}
    unit: ClassVar[str]
    paper: ClassVar[str | None] = None
    is_variant: ClassVar[bool] = False
    why_not_balanced: ClassVar[str | None] = None
    uses_unlabelled_rows: ClassVar[bool] = True
    without_labels: ClassVar[str] = ""
    accepts_cached_teacher: ClassVar[bool] = True
    compares_samples: ClassVar[bool] = False
    compares_passes: ClassVar[bool] = False
    samples_text: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    outputs: ClassVar[tuple[Output, ...]] = get_args(Output)
    levels: ClassVar[tuple[Level, ...]] = ("token", "sequence")

    def __init__(self, weight: Weight = 1.0):
        self.weight = as_schedule(weight)

    @classmethod
    def applies_to(cls, kind: TaskKind | str) -> bool:
        """Return True if the term is defined for a kind of task."""
        kind = task_kind(kind)
        return kind.output in cls.outputs and kind.level in cls.levels

    @classmethod
    def formula_for(cls, output: Output) -> str:
        """Return the formula in words for a meaning of the model's output."""
        own = cls.formula_of_regression if output == "number" else cls.formulas.get(output)
        return own or cls.formula

    @classmethod
    def why_not(cls, kind: TaskKind) -> str:
        """Return why the term does not apply to a kind of task."""
        if kind.output in cls.outputs:
            return "the term is not defined for it"
        meanings = " or ".join(OUTPUT_MEANINGS[output] for output in cls.outputs)
        return f"it is defined for {meanings}, and outputs here are {OUTPUT_MEANINGS[kind.output]}"

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """Return the names of the kinds of task that the term is defined for."""
        return tuple(name for name, kind in KINDS.items() if cls.applies_to(kind))

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        """Bind the term to the sizes of the models: pair layers, and validate that the term applies to them.

        Raises:
            UserError: if it does not.
        """
        self.kind = task_kind(kind)

    def counted_rows(self) -> str:
        """Return the row set whose number of rows the sum is divided by.

        It is `masked`, `all`, `ordinary` or a fraction for tokens, `cls`, `sequences` or `labelled` for sequences, and
        `batch` for a single value per micro-batch. `labelled` is of tokens where these have the labels.
        """
        raise NotImplementedError

    def needed_labels(self, kind: TaskKind) -> NeededLabels | None:
        """Return what the term finds no row without: labels, or a query's pairs of them; None where it needs neither.

        By default labels, where the recipe's `rows` are the tokens that have one.
        """
        rows = getattr(self, "row_set", "all")
        return "labels" if kind.level == "token" and (rows or kind.label_rows) == "labelled" else None

    def count(self, rows: Mapping[str, Tensor], passes: int) -> int:
        """Return the number of rows of a micro-batch that the student reads `passes` times, from shapes."""
        return 0 if self.compares_passes and passes == 1 else rows[self.counted_rows()].numel() * passes

    def aligned(self, rows: str) -> str:
        """Return a row set, or the part of it that has partners among the teacher's tokens, where these are others."""
        if not self.aligned_only or not self.needs_teacher or rows == "cls" or self.kind.is_of_sequences(rows):
            return rows
        return f"{ALIGNED}{rows}"

    @property
    def reads_masked_tokens(self) -> bool:
        """True if the term, in language modelling, is over the masked tokens alone."""
        return getattr(self, "row_set", None) == "masked"

    def request(self, role: Role) -> SignalRequest:
        """Return the signals of a model that the term needs."""
        raise NotImplementedError

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        """Return the modules that the term trains: name → (input, module); outputs are `Signals.projected[name]`."""
        return {}

    def seen(self, student: Signals) -> Signals:
        """Return the student's signals as the term is to see them."""
        return student

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        """Return Σ over the rows of a micro-batch. `batch` holds `input_ids`, `rows` and `labels`."""
        raise NotImplementedError


def rows_of_outputs(row_set: str | float | None, kind: TaskKind) -> str:
    """Return the row set of a term on outputs: sequences, or the tokens that a recipe chooses.

    These are by default the tokens with a label. Where words have labels, `all` are the sub-words of words: models are
    not trained on the outputs of special tokens.
    """
    if kind.level == "sequence":
        return "sequences"
    return "sub_words" if row_set == "all" and kind.has_labels else str(row_set or kind.label_rows)


def validate_row_set(term: LossTerm, row_set: str | float | None) -> None:
    """Raise UserError for tokens that a kind of task does not have: masked ones, or those with a label."""
    own = term.kind.label_rows if term.kind.level == "token" else None
    if row_set in ("masked", "labelled") and row_set != own:
        named = f"{own}, " if own else ""
        raise UserError(
            f"objective.{term.name}.rows",
            f"{named}all or a fraction",
            str(row_set),
            why=f"{term.kind} {'masks no tokens' if row_set == 'masked' else 'has no labels on tokens'}",
            fix=f"use rows={own or 'all'}",
        )


def as_schedule(value: float | Schedule) -> Schedule:
    """Return a number as a constant schedule; a schedule as it is."""
    return value if isinstance(value, Schedule) else Schedule(float(value))


def check_same_shape(
    student: Tensor,
    teacher: Tensor,
    meaning: str = "the same shape on both sides",
    names: tuple[str, str] = ("student", "teacher"),
) -> None:
    """Raise ValueError if the shapes differ."""
    if student.shape != teacher.shape:
        got = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(names, (student, teacher), strict=True))
        raise ValueError(f"expected {meaning} / got {got}")
