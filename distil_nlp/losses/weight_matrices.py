"""A loss on the weights themselves: the matrices of paired blocks."""

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
    """Return the mean squared difference over all entries of a block's matrices; 0 at equality.

    Args:
        student: the matrices of a block.
        teacher: matrices of the same shapes in the same order; no gradient flows to them.

    Raises:
        ValueError: if their numbers or shapes differ.
    """
    if len(student) != len(teacher):
        raise ValueError(f"expected as many matrices on both sides / got {len(student)} and {len(teacher)}")
    total: Any = 0.0
    for student_matrix, teacher_matrix in zip(student, teacher, strict=True):
        check_same_shape(student_matrix, teacher_matrix, "matrices alike")
        difference = at_least_fp32(student_matrix) - at_least_fp32(teacher_matrix.detach())
        total = total + difference.square().sum()
    return total / sum(matrix.numel() for matrix in student)


class Widening(nn.Module):
    """A learned map of a block's matrices W to another model's widths: L_out W L_inᵀ.

    One L is learned for the hidden width and one for the feed-forward width; widths that agree have none.

    Args:
        widths: {narrow: wide}, for the hidden states and for the feed-forward part.
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
        return [self._widen_rows(self._widen_rows(matrix).T).T for matrix in matrices]

    def _widen_rows(self, matrix: Tensor) -> Tensor:
        """Map (narrow, …) to (wide, …)."""
        width = len(matrix)
        if width not in self.widths:
            raise UserError(
                "objective.weights_mse",
                f"matrices of widths {' and '.join(map(str, self.widths))} in a block of the student",
                str(width),
                why="the width of the teacher that belongs to it is not known",
                fix="give the student the teacher's widths, or leave the term out",
            )
        return matmul_fp32(self.maps[str(width)], matrix) if str(width) in self.maps else matrix


class WeightsMSE(BlockTerm):
    """`weights_mse`: squared difference of paired blocks' weight matrices, mean over entries.

    Biases, layer norms and embeddings are left out. It has the same value for every sequence, and so for every
    micro-batch.

    Matrices are paired in the order in which the blocks hold them: query, key, value, output, feed-forward in and out,
    in models of BERT's family and DistilBERT alike. A student of other widths is projected: L_out W L_inᵀ, learned
    during training. It cannot be used where parameters are sharded (FSDP, ZeRO-3).

    Args:
        layers: see `LayerTerm`.
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
        student, teacher = self.student_shape, self.teacher_shape
        widths = {student.hidden_size: teacher.hidden_size}
        if student.feed_forward and teacher.feed_forward:
            if widths.get(student.feed_forward, teacher.feed_forward) != teacher.feed_forward:
                raise UserError(
                    "objective.weights_mse",
                    "a feed-forward part of another width than the hidden states in the student",
                    f"{student.feed_forward} for both",
                    why=(
                        f"a matrix of that width could belong to {teacher.hidden_size} or "
                        f"{teacher.feed_forward} of the teacher"
                    ),
                    fix="change student.config.intermediate_size, or leave the term out",
                )
            widths[student.feed_forward] = teacher.feed_forward
        if all(narrow == wide for narrow, wide in widths.items()):
            return {}
        return {
            self._projection_name(block): (ProjectionInput(block, "", "weights"), Widening(widths))
            for block in sorted(self.blocks("student"))
        }

    def states(
        self, student: Signals, teacher: Signals, batch: Mapping[str, Any]
    ) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """Return the matrices of (student, teacher) for each pair of blocks."""
        return [
            (self._projected(student, student_block, student.weights, student_block), teacher.weights[teacher_block])
            for teacher_block, student_block in self.pairs
        ]

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        return super().sum(student, teacher, batch, progress) * batch["rows"][self.counted_rows()].numel()

    def loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return `weights_mse` of one pair of blocks.

        Raises:
            UserError: if the shapes of their matrices differ.
        """
        student_shapes, teacher_shapes = ([tuple(matrix.shape) for matrix in side] for side in (student, teacher))
        if student_shapes != teacher_shapes:
            raise UserError(
                "objective.weights_mse",
                "blocks of like matrices",
                f"{student_shapes} and, of the teacher, {teacher_shapes}",
                why="matrices cannot be paired",
                fix="take a student of the teacher's family, or leave the term out",
            )
        return weights_mse(student, teacher)
