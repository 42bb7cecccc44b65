"""The weights themselves: matrices of paired blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distil_nlp.errors import UserError
from distil_nlp.losses.numerics import at_least_fp32, matmul_fp32
from distil_nlp.objective import BlockTerm, LayerPairs, Role, Weight, check_same_shape
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals


def weights_mse(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference over all entries of a block's matrices; 0 at equality.

    Args:
        student, teacher: matrices in the same order, alike in shape. No gradient flows to the teacher.

    Raises:
        ValueError: if their numbers or shapes differ.
    """
    if len(student) != len(teacher):
        raise ValueError(f"expected as many matrices on both sides / got {len(student)} and {len(teacher)}")
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        check_same_shape(ours, theirs, "matrices alike")
        total = total + (at_least_fp32(ours) - at_least_fp32(theirs.detach())).square().sum()
    return total / sum(one.numel() for one in student)


class Widening(nn.Module):
    """A block's matrices at another model's widths: L_out W L_inᵀ, with one learned L for the hidden width and one for
    the feed-forward width, and none for a width that stays.

    Args:
        widths: {narrow: wide}, of the hidden states and of the feed-forward part.
    """

    def __init__(self, widths: Mapping[int, int]):
        super().__init__()
        self.widths = dict(widths)
        self.maps = nn.ParameterDict(
            {
                str(narrow): nn.init.orthogonal_(torch.empty(wide, narrow))
                for narrow, wide in widths.items()
                if narrow != wide
            }
        )

    def forward(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        return [self._widened(self._widened(one).T).T for one in matrices]

    def _widened(self, matrix: Tensor) -> Tensor:
        """(narrow, …) as (wide, …)."""
        width = len(matrix)
        if width not in self.widths:
            raise UserError(
                f"objective.weights_mse: expected matrices of widths {' and '.join(map(str, self.widths))} in a block "
                f"of the student / got {width} / it is not known which width of the teacher it stands for / give the "
                "student the teacher's widths, or leave the term out"
            )
        return matmul_fp32(self.maps[str(width)], matrix) if str(width) in self.maps else matrix


class WeightsMSE(BlockTerm):
    """`weights_mse`: squared difference of paired blocks' weight matrices, mean over entries. Biases, layer norms and
    embeddings take no part. It is the same for every sequence, and so for every micro-batch.

    Matrices are paired in the order in which the blocks hold them: query, key, value, output, feed-forward in and out,
    in BERT's kin and DistilBERT alike. A student of other widths is projected: L_out W L_inᵀ, learned with it. Not
    where parameters are sharded (FSDP, ZeRO-3).

    Args:
        layers: as of `LayerTerm`.
    """

    name = "weights_mse"
    uses_unlabelled_rows = accepts_cached_teacher = False
    unit = "squared difference"
    formula = "the squared difference of the blocks' weight matrices, mean over entries"
    lacking = "have no matrices of a block"

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "uniform"):
        super().__init__(weight, layers)

    def counted_rows(self) -> str:
        return "sequences"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(weights=self.blocks(role))

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        ours, theirs = self.student_shape, self.teacher_shape
        widths = {ours.hidden_size: theirs.hidden_size}
        if ours.feed_forward and theirs.feed_forward:
            if widths.get(ours.feed_forward, theirs.feed_forward) != theirs.feed_forward:
                raise UserError(
                    "objective.weights_mse: expected a feed-forward part of another width than the hidden states in "
                    f"the student / got {ours.feed_forward} for both / a matrix of that width could stand for "
                    f"{theirs.hidden_size} or {theirs.feed_forward} of the teacher's / change "
                    "student.config.intermediate_size, or leave the term out"
                )
            widths[ours.feed_forward] = theirs.feed_forward
        if all(narrow == wide for narrow, wide in widths.items()):
            return {}
        return {
            self._projection(block): (ProjectionInput(block, "", "weights"), Widening(widths))
            for block in sorted(self.blocks("student"))
        }

    def states(
        self, student: Signals, teacher: Signals, batch: Mapping[str, Any]
    ) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """The matrices of (student, teacher) of each pair of blocks."""
        return [
            (self._projected(student, ours, student.weights, ours), teacher.weights[theirs])
            for theirs, ours in self.pairs
        ]

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        return super().sum(student, teacher, batch, progress) * batch["rows"][self.counted_rows()].numel()

    def loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Of one pair of blocks.

        Raises:
            UserError: if their matrices do not fit each other.
        """
        shapes = [[tuple(one.shape) for one in side] for side in (student, teacher)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"objective.weights_mse: expected blocks of like matrices / got {shapes[0]} and, of the teacher, "
                f"{shapes[1]} / there is no telling which stands for which / take a student of the teacher's family, "
                "or leave the term out"
            )
        return weights_mse(student, teacher)
