"""Terms on paired layers: the pairs, the captured signals, and projections to the teacher's width."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

from torch import Tensor, nn

from distil_nlp.errors import UserError
from distil_nlp.objective.gather import gather_rows
from distil_nlp.objective.term import LayerPairs, LossTerm, ModelShape, Role, RowSetName, Weight, validate_row_set
from distil_nlp.signals.types import EMBEDDINGS, ProjectionInput, SignalRequest, Signals
from distil_nlp.tasks import TaskKind


def pair_layers(layers: LayerPairs, teacher: ModelShape, student: ModelShape, where: str) -> list[tuple[int, int]]:
    """Return (teacher block, student block) pairs; blocks are 0-based, `embeddings` is `EMBEDDINGS`.

    `last` pairs the last blocks; `uniform` pairs every student block with the teacher block at the same relative
    depth, block ⌊(i + 1) · T / S⌋ − 1, and of a deeper student every teacher block j with the student's block
    ⌊(j + 1) · S / T⌋ − 1; `all` is `uniform` and the embedding outputs; `skip` is `uniform` without the last blocks;
    `middle` is the middle pair of `uniform`, the lower of two.

    Raises:
        UserError: if a block does not exist, or no pair is left.
    """
    depth_t, depth_s = teacher.num_layers, student.num_layers
    pairs_of = min(depth_t, depth_s)
    uniform = [((i + 1) * depth_t // pairs_of - 1, (i + 1) * depth_s // pairs_of - 1) for i in range(pairs_of)]
    if layers == "last":
        return [(depth_t - 1, depth_s - 1)]
    if layers == "uniform":
        return uniform
    if layers == "all":
        return [(EMBEDDINGS, EMBEDDINGS), *uniform]
    if layers == "middle":
        return [uniform[(pairs_of - 1) // 2]]
    if layers == "skip":
        if pairs_of == 1:
            raise UserError(
                f"{where}.layers",
                "a student and a teacher of 2 layers or more",
                f"skip and a {'student' if depth_s == 1 else 'teacher'} of 1",
                why="its only layer is the last, which skip leaves out",
                fix="use layers=last",
            )
        return uniform[:-1]
    pairs: list[tuple[int, int]] = []
    for pair in layers:
        for block, depth, role in zip(pair, (depth_t, depth_s), ("teacher", "student"), strict=True):
            if block != "embeddings" and not (isinstance(block, int) and 0 <= block < depth):
                raise UserError(
                    f"{where}.layers",
                    f"{role} layers 0 to {depth - 1} or embeddings",
                    f"{block!r} in {list(pair)}",
                    why="there is no such layer",
                    fix="pairs are [teacher layer, student layer]",
                )
        first, second = (EMBEDDINGS if block == "embeddings" else block for block in pair)
        pairs.append((first, second))
    return pairs


class LayerTerm(LossTerm):
    """A term on paired layers.

    Args:
        layers: [teacher, student] pairs of 0-based blocks (`embeddings` for the embedding output), or
            `last`, `uniform`, `all`, `skip`, `middle` (see `pair_layers`).
        rows: `all` attended tokens, those with a label (`masked` ones of mlm, `labelled` ones of tokens), or a sampled
            fraction.
    """

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "uniform", rows: RowSetName = "all"):
        super().__init__(weight)
        self.layers = layers
        self.row_set: str | float = rows

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        assert teacher is not None  # as `Objective.bind` makes sure
        validate_row_set(self, self.row_set)
        self.pairs = pair_layers(self.layers, teacher, student, f"objective.{self.name}")
        self.teacher_shape, self.student_shape = teacher, student

    def counted_rows(self) -> str:
        return self.aligned(str(self.row_set))

    def blocks(self, role: Role) -> frozenset[int]:
        return frozenset(pair[role == "student"] for pair in self.pairs)

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the arguments of `loss` for each pair of layers."""
        raise NotImplementedError

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        total: Any = 0.0
        for states in self.states(student, teacher, batch):
            total = total + self.loss(*states)
        return total / len(self.pairs)

    def loss(self, *states: Any) -> Tensor:
        """Return Σ over rows for a pair of layers, given what `states` returns for it."""
        raise NotImplementedError

    def _drop_embeddings(self, why: str) -> None:
        """Drop pairs of embedding outputs; raise UserError with the reason `why` if such a pair was named."""
        if any(EMBEDDINGS in pair for pair in self.pairs):
            self.pairs = [pair for pair in self.pairs if EMBEDDINGS not in pair]
            if self.layers != "all":
                raise UserError(
                    f"objective.{self.name}.layers",
                    "blocks",
                    "embeddings",
                    why=why,
                    fix="remove that pair",
                )

    def _projection_name(self, *blocks: int) -> str:
        return "_".join([self.name, *("embeddings" if block == EMBEDDINGS else str(block) for block in blocks)])

    def _projected(self, student: Signals, block: int, signals: Mapping[Any, Any], key: Any) -> Any:
        """Return the projection of a student layer, or `signals[key]` if it has none."""
        name = self._projection_name(block)
        return student.projected[name] if name in student.projected else signals[key]


class BlockTerm(LayerTerm):
    """A term on signals within blocks, such as attention: `all` is `uniform`, because embeddings have none.

    Attributes:
        lacking: predicate that says what embeddings lack, for the message ("have no attention").
    """

    lacking: ClassVar[str]

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        self._drop_embeddings(f"embeddings {self.lacking}")


class HiddenTerm(LayerTerm):
    """A term on hidden states of paired layers; a learned linear projection maps the student to the teacher's width."""

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if self.signal_rows() == "cls":
            self._drop_embeddings("the embedding of [CLS] is the same in every sequence")

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(hidden=frozenset((block, self.signal_rows()) for block in self.blocks(role)))

    def signal_rows(self) -> str:
        """Return the row set whose states are captured."""
        return self.counted_rows()

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        projections = {}
        for block in sorted(self.blocks("student")):
            module = self.projection(self.student_shape.hidden_size, self.teacher_shape.hidden_size)
            if module is not None:
                projections[self._projection_name(block)] = (ProjectionInput(block, self.signal_rows()), module)
        return projections

    def projection(self, narrow: int, wide: int) -> nn.Module | None:
        """Return the module that maps states of a student layer to the teacher's width, or None."""
        return None if narrow == wide else nn.Linear(narrow, wide)

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return (student, teacher) for each pair of layers, (rows, width) each."""
        rows = self.signal_rows()
        return [
            (self._state(student, block), teacher.hidden[teacher_block, rows]) for teacher_block, block in self.pairs
        ]

    def _state(self, student: Signals, block: int) -> Tensor:
        return self._projected(student, block, student.hidden, (block, self.signal_rows()))


class JointTerm(HiddenTerm):
    """A term on hidden states of paired layers that are inputs of the same learned module, with a module per pair."""

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        widths, rows, modules = (self.student_shape.hidden_size, self.teacher_shape.hidden_size), self.signal_rows(), {}
        for teacher_block, block in self.pairs:
            source = ProjectionInput(block, rows, teacher=(teacher_block, rows))
            modules[self._projection_name(teacher_block, block)] = (source, self.module(*widths))
        return modules

    def module(self, narrow: int, wide: int) -> nn.Module:
        """Return a module that maps the states of a student layer and its teacher layer to the arguments of `loss`."""
        raise NotImplementedError

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        outputs: Mapping[str, Any] = student.projected
        return [outputs[self._projection_name(*pair)] for pair in self.pairs]


class CrossTerm(HiddenTerm):
    """A term on the hidden states of all student and all teacher blocks, which learns or computes their alignment."""

    def __init__(self, weight: Weight = 1.0):
        super().__init__(weight)

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        self.pairs = list(product(range(self.teacher_shape.num_layers), range(student.num_layers)))

    def blocks_of(self, student: Signals, teacher: Signals) -> tuple[list[Tensor], list[Tensor]]:
        """Return (student states at the teacher's width, teacher states), from the first block; (rows, width) each."""
        student_blocks, teacher_blocks = (range(s.num_layers) for s in (self.student_shape, self.teacher_shape))
        student_states = [self._state(student, block) for block in student_blocks]
        return student_states, [teacher.hidden[block, self.signal_rows()] for block in teacher_blocks]


class SequenceTerm(HiddenTerm):
    """A term on relations between the tokens, or between the neurons, of a sequence, with one value per sequence.

    `states` are (sequences, tokens, width), and 0 at padding.

    Args:
        layers: see `LayerTerm`; the term uses all attended tokens.
    """

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last"):
        super().__init__(weight, layers)

    def counted_rows(self) -> str:
        return "sequences"

    def signal_rows(self) -> str:
        return self.aligned("all")

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        pairs, places = super().states(student, teacher, batch), batch["rows"][self.signal_rows()]
        return [tuple(by_sequence(s, places, batch["input_ids"]) for s in pair) for pair in pairs]


class BatchTerm(HiddenTerm):
    """A term on relations between the rows of a micro-batch, which are not a sum over rows.

    It has one value per micro-batch, with the rows of all processes gathered, and is averaged over the micro-batches of
    a step. It therefore depends on the size of a micro-batch; a micro-batch of a single sequence is ignored. The widths
    of student and teacher may differ.

    Args:
        layers: see `LayerTerm`; the term uses the [CLS] states.
    """

    compares_samples = True

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last"):
        super().__init__(weight, layers)

    def counted_rows(self) -> str:
        return "batch"

    def signal_rows(self) -> str:
        return "cls"

    def projection(self, narrow: int, wide: int) -> nn.Module | None:
        return None

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        pairs = super().states(student, teacher, batch)
        return [tuple(gather_rows(states, self.signal_rows(), batch) for states in pair) for pair in pairs]

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        if not batch["rows"]["batch"].numel():
            return sum(states.sum() for states, _ in self.states(student, teacher, batch)) * 0.0
        return super().sum(student, teacher, batch, progress)


def by_sequence(states: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Scatter (rows, width) to their flat positions in `tokens`, (batch, seq): (batch, seq, width), 0 elsewhere."""
    empty = states.new_zeros(tokens.numel(), states.shape[1])
    return empty.index_copy(0, places, states).unflatten(0, tokens.shape)
