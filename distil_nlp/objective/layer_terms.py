"""Terms on paired layers: what they see of which, and how the student's get the teacher's width."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

from torch import Tensor, nn

from distil_nlp.errors import UserError
from distil_nlp.objective.gather import gather_rows
from distil_nlp.objective.term import LayerPairs, LossTerm, ModelShape, Role, RowSetName, Weight
from distil_nlp.signals.types import EMBEDDINGS, ProjectionInput, SignalRequest, Signals
from distil_nlp.tasks import TaskKind


def pair_layers(layers: LayerPairs, teacher: ModelShape, student: ModelShape, where: str) -> list[tuple[int, int]]:
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
            None,
            f"at most the teacher's {depth_t} layers",
            f"a student of {depth_s}",
            why="layers cannot be paired",
            fix="take a shallower student",
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
                f"{where}.layers",
                "a student of 2 layers or more",
                "skip and a student of 1",
                why="its only layer is the last, which skip leaves out",
                fix="use layers=last",
            )
        return uniform[:-1]
    pairs = []
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
        pairs.append(tuple(EMBEDDINGS if block == "embeddings" else block for block in pair))
    return pairs


class LayerTerm(LossTerm):
    """A term on paired layers.

    Args:
        layers: [teacher, student] pairs of 0-based blocks (`embeddings` for the embedding output), or
            `last`, `uniform`, `all`, `skip`, `middle` (see `pair_layers`).
        rows: `all` attended tokens, `masked` tokens, or a sampled share.
    """

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "uniform", rows: RowSetName = "all"):
        super().__init__(weight)
        self.layers, self.row_set = layers, rows

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if self.row_set == "masked" and self.kind.label_rows != "masked":
            raise UserError(
                f"objective.{self.name}.rows",
                "all or a share",
                "masked",
                why=f"{kind} masks no tokens",
                fix="use rows=all",
            )
        self.pairs = pair_layers(self.layers, teacher, student, f"objective.{self.name}")
        self.teacher_shape, self.student_shape = teacher, student

    def counted_rows(self) -> str:
        return str(self.row_set)

    def blocks(self, role: Role) -> frozenset[int]:
        return frozenset(pair[role == "student"] for pair in self.pairs)

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """What is compared of each pair of layers, as `loss` takes it."""
        raise NotImplementedError

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        total = 0.0
        for states in self.states(student, teacher, batch):
            total = total + self.loss(*states)
        return total / len(self.pairs)

    def loss(self, *states: Any) -> Tensor:
        """Σ over rows of one pair of layers, with what `states` gives of it."""
        raise NotImplementedError

    def _leave_embeddings_out(self, why: str) -> None:
        """Raises UserError, saying why, if a pair with them was named."""
        if any(EMBEDDINGS in pair for pair in self.pairs):
            self.pairs = [pair for pair in self.pairs if EMBEDDINGS not in pair]
            if self.layers != "all":
                raise UserError(
                    f"objective.{self.name}.layers",
                    "blocks",
                    "embeddings",
                    why=f"{why}",
                    fix="take that pair out",
                )

    def _projection(self, *blocks: int) -> str:
        return "_".join([self.name, *("embeddings" if block == EMBEDDINGS else str(block) for block in blocks)])

    def _projected(self, student: Signals, block: int, seen: Mapping[Any, Any], key: Any) -> Any:
        """What the projection of a student layer gives, or `seen[key]` where it has none."""
        name = self._projection(block)
        return student.projected[name] if name in student.projected else seen[key]


class BlockTerm(LayerTerm):
    """A term on what lies within blocks, such as attention: `all` is `uniform`, because embeddings have none of it.

    Attributes:
        lacking: what embeddings lack, for the message.
    """

    lacking: ClassVar[str]

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        self._leave_embeddings_out(f"embeddings {self.lacking}")


class HiddenTerm(LayerTerm):
    """Hidden states of paired layers; a learned linear projection lifts a narrower or wider student."""

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if self.signal_rows() == "cls":
            self._leave_embeddings_out("the embedding of [CLS] is the same in every sequence")

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(hidden=frozenset((block, self.signal_rows()) for block in self.blocks(role)))

    def signal_rows(self) -> str:
        """The row set whose states it looks at."""
        return self.counted_rows()

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        found = {}
        for block in sorted(self.blocks("student")):
            module = self.projection(self.student_shape.hidden_size, self.teacher_shape.hidden_size)
            if module is not None:
                found[self._projection(block)] = (ProjectionInput(block, self.signal_rows()), module)
        return found

    def projection(self, narrow: int, wide: int) -> nn.Module | None:
        """What the states of a student layer go through, from its width to the teacher's; None for nothing."""
        return None if narrow == wide else nn.Linear(narrow, wide)

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, ...]]:
        """(student, teacher) of each pair of layers, (rows, width) each."""
        return [(self._state(student, ours), teacher.hidden[theirs, self.signal_rows()]) for theirs, ours in self.pairs]

    def _state(self, student: Signals, block: int) -> Tensor:
        return self._projected(student, block, student.hidden, (block, self.signal_rows()))


class JointTerm(HiddenTerm):
    """Hidden states of paired layers that a learned module sees together, one module for each pair."""

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        widths, found = (self.student_shape.hidden_size, self.teacher_shape.hidden_size), {}
        for theirs, ours in self.pairs:
            source = ProjectionInput(ours, self.signal_rows(), teacher=(theirs, self.signal_rows()))
            found[self._projection(theirs, ours)] = (source, self.module(*widths))
        return found

    def module(self, narrow: int, wide: int) -> nn.Module:
        """What is called with the states of a student layer and of its teacher's; it gives what `loss` takes."""
        raise NotImplementedError

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, ...]]:
        return [student.projected[self._projection(*pair)] for pair in self.pairs]


class CrossTerm(HiddenTerm):
    """Hidden states of every block of the student and every one of the teacher's; the term itself finds out which
    belong together."""

    def __init__(self, weight: Weight = 1.0):
        super().__init__(weight)

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        self.pairs = list(product(range(teacher.num_layers), range(student.num_layers)))

    def blocks_of(self, student: Signals, teacher: Signals) -> tuple[list[Tensor], list[Tensor]]:
        """The student's, as wide as the teacher, and the teacher's, from below; (rows, width) each."""
        ours, theirs = (range(shape.num_layers) for shape in (self.student_shape, self.teacher_shape))
        return [self._state(student, block) for block in ours], [
            teacher.hidden[block, self.signal_rows()] for block in theirs
        ]


class SequenceTerm(HiddenTerm):
    """A term on how the tokens of a sequence lie to each other, or its neurons: one value for a sequence. `states` are
    (sequences, tokens, width), and 0 at padding.

    Args:
        layers: as of `LayerTerm`; all attended tokens of these.
    """

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last"):
        super().__init__(weight, layers)

    def counted_rows(self) -> str:
        return "sequences"

    def signal_rows(self) -> str:
        return "all"

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        pairs = super().states(student, teacher, batch)
        return [tuple(by_sequence(one, batch["rows"]["all"], batch["input_ids"]) for one in pair) for pair in pairs]


class BatchTerm(HiddenTerm):
    """A term on how the rows of a micro-batch lie to each other, which no sum over rows can tell: it is one value for a
    micro-batch, the rows of all processes gathered, and the mean over those of a step. So it depends on the
    micro-batch's size; one of a single sequence takes no part. Widths need not agree.

    Args:
        layers: as of `LayerTerm`; [CLS] of these.
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

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        pairs = super().states(student, teacher, batch)
        return [tuple(gather_rows(one, self.signal_rows(), batch) for one in pair) for pair in pairs]

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        if not batch["rows"]["batch"].numel():
            return sum(ours.sum() for ours, _ in self.states(student, teacher, batch)) * 0.0
        return super().sum(student, teacher, batch, progress)


def by_sequence(states: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """(rows, width) at flat positions of `tokens`, (batch, seq), as (batch, seq, width), with 0 elsewhere."""
    empty = states.new_zeros(tokens.numel(), states.shape[1])
    return empty.index_copy(0, places, states).unflatten(0, tokens.shape)
