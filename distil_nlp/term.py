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

from distil_nlp.architecture import feed_forward_width
from distil_nlp.errors import UserError
from distil_nlp.schedule import Schedule
from distil_nlp.signals import EMBEDDINGS, Request, Signals, Source
from distil_nlp.tasks import Kind

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Bins = Annotated[int, Field(ge=2, le=1000)]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = float | Schedule
Temperature = Positive | Schedule
Rows = Literal["masked", "all"] | Share
Block = Literal["embeddings"] | Annotated[int, Field(ge=0)]
Pair = Annotated[Sequence[Block], Field(min_length=2, max_length=2)]
Layers = Literal["last", "uniform", "all", "skip", "middle"] | Annotated[list[Pair], Field(min_length=1)]
Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Shape:
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
    def of(cls, config: Any) -> Shape:
        types = getattr(config, "layer_types", None)
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
        return cls(
            *shape, tuple(types) if types else None, feed_forward_width(config), getattr(config, "num_labels", None)
        )


def pair_layers(layers: Layers, teacher: Shape, student: Shape, where: str) -> list[tuple[int, int]]:
    """(teacher block, student block) pairs; blocks are 0-based, `embeddings` is `EMBEDDINGS`.

    `last` pairs the last blocks; `uniform` every student block with the teacher block at the same relative
    depth, block ⌊(i + 1) · T / S⌋ − 1; `all` is `uniform` and the embedding outputs; `skip` is `uniform` without the
    last blocks; `middle` is the middle pair of `uniform`, the lower one of two.

    Raises:
        UserError: if a number is outside the model, or no pair is left.
    """
    depth_t, depth_s = teacher.num_layers, student.num_layers
    if depth_s > depth_t:
        raise UserError(
            f"expected at most the teacher's {depth_t} layers / got a student of {depth_s} / layers cannot be paired / "
            "take a shallower student"
        )
    uniform = [((i + 1) * depth_t // depth_s - 1, i) for i in range(depth_s)]
    if layers == "last":
        return [(depth_t - 1, depth_s - 1)]
    if layers == "uniform":
        return uniform
    if layers == "all":
        return [(EMBEDDINGS, EMBEDDINGS), *uniform]
    if layers == "middle":
        return [uniform[(depth_s - 1) // 2]]
    if layers == "skip":
        if depth_s == 1:
            raise UserError(
                f"{where}.layers: expected a student of 2 layers or more / got skip and a student of 1 / its only "
                "layer is the last, which skip leaves out / use layers=last"
            )
        return uniform[:-1]
    pairs = []
    for pair in layers:
        for block, depth, role in zip(pair, (depth_t, depth_s), ("teacher", "student"), strict=True):
            if block != "embeddings" and not (isinstance(block, int) and 0 <= block < depth):
                raise UserError(
                    f"{where}.layers: expected {role} layers 0 to {depth - 1} or embeddings / got {block!r} in "
                    f"{list(pair)} / there is no such layer / pairs are [teacher layer, student layer]"
                )
        pairs.append(tuple(EMBEDDINGS if block == "embeddings" else block for block in pair))
    return pairs


class Term:
    """One thing the student matches.

    Args:
        weight: its factor in the loss, a number or a `Schedule`; 0 throughout switches the term off.

    A subclass sets `name` and what differs of the class attributes, and fills in `rows`, `request` and `sum`. What it
    returns is summed over `rows` and averaged over layer pairs, so that weights mean the same for one pair as for six.

    Attributes:
        name: in recipes and logs.
        needs_teacher: whether it looks at one.
        kinds: of tasks that it has a meaning for.
        formula, formula_of_regression: for a reader of the model card; the latter where it is another one.
        paper: its source on arXiv.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    formula_of_regression: ClassVar[str | None] = None
    paper: ClassVar[str | None] = None
    needs_teacher: ClassVar[bool] = True
    kinds: ClassVar[tuple[Kind, ...]] = ("mlm", "classification", "regression")

    def __init__(self, weight: Weight = 1.0):
        self.weight = as_schedule(weight)

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        """Called once with the models' shapes: pairs layers, checks that term and models fit.

        Raises:
            UserError: if they do not.
        """
        if kind not in self.kinds:
            raise UserError(
                f"objective.{self.name}: expected {' or '.join(self.kinds)} / got {kind} / it has no meaning there / "
                "leave it out"
            )
        self.kind = kind

    def rows(self) -> str:
        """The row set that it is divided by: `masked`, `all` or a share for tokens; `cls`, `sequences` or `labelled`
        for whole rows; `batch` for what is one value a micro-batch."""
        raise NotImplementedError

    def request(self, role: Role) -> Request:
        raise NotImplementedError

    def projections(self) -> dict[str, tuple[Source, nn.Module]]:
        """Projections the term trains: name → (where in the student, such as (layer, row set), module)."""
        return {}

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        """Σ over the rows of this micro-batch. `batch` holds `input_ids`, `rows` and `labels`."""
        raise NotImplementedError


class OutputTerm(Term):
    """A term on logits: rows are tokens for language modelling, sequences otherwise.

    Attributes:
        takes_top: whether `TopLogits` will do for the teacher's, which is what a cache keeps of a vocabulary.
        least_classes: of how many classes it has a gradient.
    """

    takes_top: ClassVar[bool] = False
    least_classes: ClassVar[int] = 2

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        super().bind(kind, teacher, student)
        least, classes = self.least_classes, student.num_labels
        if kind == "classification" and classes is not None and classes < least:
            raise UserError(
                f"objective.{self.name}: expected {least} classes or more / got {classes} / with fewer it is the same "
                "for nearly all outputs, and teaches nothing / leave it out"
            )

    def request(self, role: Role) -> Request:
        return Request(logits=role == "student" or self.needs_teacher)

    def seen(self) -> str:
        """The row set whose logits it looks at."""
        return self.rows()

    def logits(self, signals: Signals, batch: Mapping[str, Any]) -> Any:
        """The term's rows among those that the head ran on."""
        return signals.logits.index_select(0, batch["rows"][f"logits/{self.seen()}"])


class SoftTerm(OutputTerm):
    """A term between the outputs of student and teacher.

    Args:
        rows: language modelling only: `masked` tokens, `all` attended tokens, or a sampled share of them.
            DistilBERT's published default is all; the masked 15 % spare 85 % of the vocabulary projection.
    """

    def __init__(self, weight: Weight = 1.0, rows: Rows = "masked"):
        super().__init__(weight)
        self.row_set = rows

    def rows(self) -> str:
        return str(self.row_set) if self.kind == "mlm" else "sequences"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        return self.between(self.logits(student, batch), self.logits(teacher, batch), progress)

    def between(self, student: Tensor, teacher: Any, progress: float) -> Tensor:
        """Σ over rows: logits (rows, classes) of both; regression has one class, its output."""
        raise NotImplementedError


class LabelTerm(OutputTerm):
    """A term on labels: of masked tokens (language modelling), or of rows that are not labelled −100 or NaN."""

    def rows(self) -> str:
        return "masked" if self.kind == "mlm" else "labelled"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        if "labels" not in batch:
            return self.logits(student, batch).sum() * 0.0
        labels = batch["labels"].flatten().index_select(0, batch["rows"][self.rows()])
        return self.against(labels, self.logits(student, batch), teacher, batch, progress)

    def against(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        """Σ over the labelled rows: `labels` (rows,), the student's `logits` (rows, classes)."""
        raise NotImplementedError


class OutputBatchTerm(OutputTerm):
    """A term on how the outputs of a micro-batch's sequences lie to each other: a `BatchTerm` that looks at logits.

    It is one value for a micro-batch; one of a single row takes no part. Not for language modelling, whose logits are
    seen chunk by chunk.
    """

    kinds = ("classification", "regression")

    def rows(self) -> str:
        return "batch"

    def seen(self) -> str:
        return "sequences"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        ours = self.logits(student, batch)
        if not batch["rows"]["batch"].numel():
            return ours.sum() * 0.0
        return self.between(ours, self.logits(teacher, batch), progress)

    def between(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Of the whole micro-batch: logits (rows, classes) of both."""
        raise NotImplementedError


class LayerTerm(Term):
    """A term on paired layers.

    Args:
        layers: [teacher, student] pairs of 0-based blocks (`embeddings` for the embedding output), or
            `last`, `uniform`, `all`, `skip`, `middle` (see `pair_layers`).
        rows: `all` attended tokens, `masked` tokens, or a sampled share.
    """

    def __init__(self, weight: Weight = 1.0, layers: Layers = "uniform", rows: Rows = "all"):
        super().__init__(weight)
        self.layers, self.row_set = layers, rows

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        super().bind(kind, teacher, student)
        if self.row_set == "masked" and kind != "mlm":
            raise UserError(
                f"objective.{self.name}.rows: expected all or a share / got masked / {kind} masks no tokens / "
                "use rows=all"
            )
        self.pairs = pair_layers(self.layers, teacher, student, f"objective.{self.name}")
        self.teacher_shape, self.student_shape = teacher, student

    def rows(self) -> str:
        return str(self.row_set)

    def blocks(self, role: Role) -> frozenset[int]:
        return frozenset(pair[role == "student"] for pair in self.pairs)


class BlockTerm(LayerTerm):
    """A term on what lies within blocks, such as attention: `all` is `uniform`, because embeddings have none of it.

    Attributes:
        lacking: what embeddings lack, for the message.
    """

    lacking: ClassVar[str]

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        super().bind(kind, teacher, student)
        if any(EMBEDDINGS in pair for pair in self.pairs):
            self.pairs = [pair for pair in self.pairs if EMBEDDINGS not in pair]
            if self.layers != "all":
                raise UserError(
                    f"objective.{self.name}.layers: expected blocks / got embeddings / embeddings {self.lacking} / "
                    "take that pair out"
                )


class HiddenTerm(LayerTerm):
    """Hidden states of paired layers; a learned linear projection lifts a narrower or wider student."""

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        super().bind(kind, teacher, student)
        if self.seen() == "cls" and any(EMBEDDINGS in pair for pair in self.pairs):
            self.pairs = [pair for pair in self.pairs if EMBEDDINGS not in pair]
            if self.layers != "all":
                raise UserError(
                    f"objective.{self.name}.layers: expected blocks / got embeddings / the embedding of [CLS] is the "
                    "same in every sequence / take that pair out"
                )

    def request(self, role: Role) -> Request:
        return Request(hidden=frozenset((block, self.seen()) for block in self.blocks(role)))

    def seen(self) -> str:
        """The row set whose states it looks at."""
        return self.rows()

    def projections(self) -> dict[str, tuple[tuple[int, str], nn.Module]]:
        found = {}
        for block in sorted(self.blocks("student")):
            module = self.projection(self.student_shape.hidden_size, self.teacher_shape.hidden_size)
            if module is not None:
                found[self._projection(block)] = ((block, self.seen()), module)
        return found

    def projection(self, narrow: int, wide: int) -> nn.Module | None:
        """What the states of a student layer go through, from its width to the teacher's; None for nothing."""
        return None if narrow == wide else nn.Linear(narrow, wide)

    def _projection(self, block: int) -> str:
        return f"{self.name}_{'embeddings' if block == EMBEDDINGS else block}"

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) of each pair of layers, (rows, width) each."""
        found = []
        for theirs, ours in self.pairs:
            name = self._projection(ours)
            state = student.projected[name] if name in student.projected else student.hidden[ours, self.seen()]
            found.append((state, teacher.hidden[theirs, self.seen()]))
        return found

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        total = 0.0
        for ours, theirs in self.states(student, teacher, batch):
            total = total + self.between(ours, theirs)
        return total / len(self.pairs)

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Σ over rows of one pair of layers, with what `states` gives of it."""
        raise NotImplementedError


class SequenceTerm(HiddenTerm):
    """A term on how the tokens of a sequence lie to each other, or its neurons: one value for a sequence. `states` are
    (sequences, tokens, width), and 0 at padding.

    Args:
        layers: as of `LayerTerm`; all attended tokens of these.
    """

    def __init__(self, weight: Weight = 1.0, layers: Layers = "last"):
        super().__init__(weight, layers)

    def rows(self) -> str:
        return "sequences"

    def seen(self) -> str:
        return "all"

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        pairs = super().states(student, teacher, batch)
        return [tuple(by_sequence(one, batch["rows"]["all"], batch["input_ids"]) for one in pair) for pair in pairs]


class BatchTerm(HiddenTerm):
    """A term on how the rows of a micro-batch lie to each other, which no sum over rows can tell: it is one value for a
    micro-batch, and the mean over those of a step and of all processes. So it depends on the micro-batch's size; one of
    a single sequence takes no part. Widths need not agree.

    Args:
        layers: as of `LayerTerm`; [CLS] of these.
    """

    def __init__(self, weight: Weight = 1.0, layers: Layers = "last"):
        super().__init__(weight, layers)

    def rows(self) -> str:
        return "batch"

    def seen(self) -> str:
        return "cls"

    def projection(self, narrow: int, wide: int) -> nn.Module | None:
        return None

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        if not batch["rows"]["batch"].numel():
            return sum(ours.sum() for ours, _ in self.states(student, teacher, batch)) * 0.0
        return super().sum(student, teacher, batch, progress)


def by_sequence(states: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """(rows, width) at flat positions of `tokens`, (batch, seq), as (batch, seq, width), with 0 elsewhere."""
    empty = states.new_zeros(tokens.numel(), states.shape[1])
    return empty.index_copy(0, places, states).unflatten(0, tokens.shape)


def as_schedule(value: float | Schedule) -> Schedule:
    return value if isinstance(value, Schedule) else Schedule(float(value))


def same_shape(
    student: Tensor,
    teacher: Tensor,
    meaning: str = "the same shape on both sides",
    names: tuple[str, str] = ("student", "teacher"),
) -> None:
    """Raises ValueError where the shapes differ."""
    if student.shape != teacher.shape:
        got = ", ".join(f"{name} {tuple(one.shape)}" for name, one in zip(names, (student, teacher), strict=True))
        raise ValueError(f"expected {meaning} / got {got}")
