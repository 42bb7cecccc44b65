"""The flow of the solution procedure (FSP): products of a layer's states with those of the next layer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.numerics import matmul_fp32
from distil_nlp.objective import LayerPairs, ModelShape, SequenceTerm, Weight, by_sequence, check_same_shape
from distil_nlp.signals.types import Signals
from distil_nlp.tasks import TaskKind


def gram_flow(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], lengths: Tensor) -> Tensor:
    """Return Σ_sequences mean_entries (G_student − G_teacher)²; 0 at equality.

    G = (1 / tokens) Σ_tokens lower upperᵀ, (width, width), of a lower and an upper layer of one model. The paper sums
    the entries; their mean keeps a weight comparable between widths.

    Args:
        student: states of the lower and the upper layer, (sequences, tokens, width) each, 0 at padding.
        teacher: the same of the teacher; no gradient flows to it.
        lengths: the number of tokens of each sequence, (sequences,); a sequence of length 0 adds 0.

    Raises:
        ValueError: if the shapes differ.

    Reference: Yim, Joo, Bae, Kim, A Gift from Knowledge Distillation, CVPR 2017: the FSP matrix and loss.
    """
    for student_states, teacher_states in zip(student, teacher, strict=True):
        check_same_shape(student_states, teacher_states, "(sequences, tokens, width) alike")
    student_gram = matmul_fp32(student[0].transpose(1, 2), student[1])
    teacher_gram = matmul_fp32(teacher[0].detach().transpose(1, 2), teacher[1].detach())
    difference = (student_gram - teacher_gram) / lengths.clamp_min(1)[:, None, None]
    return difference.square().mean((1, 2)).sum()


class GramFlow(SequenceTerm):
    """`gram_flow`: squared error of the Gram matrices between each paired layer and the next paired layer (FSP).

    One value per sequence, the mean over these steps. A student of another width is projected. Matrices of width² are
    held for each sequence and step.

    Args:
        layers: two pairs or more, in increasing depth; `all` compares the transformation by each student layer with
            that by the teacher's layers up to the same depth.
    """

    name, paper = "gram_flow", None
    unit = "squared difference"
    formula = "the squared error of the Gram matrices between a layer and the next"

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "all"):
        super().__init__(weight, layers)

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if len(self.pairs) < 2:
            raise UserError(
                "objective.gram_flow.layers",
                "two pairs of layers or more",
                f"{self.layers}, which is {len(self.pairs)}",
                why="a flow goes from one layer to another",
                fix="use layers=all",
            )

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        states = self.states(student, teacher, batch)
        positions, tokens = batch["rows"][self.signal_rows()], batch["input_ids"]
        lengths = by_sequence(states[0][0].new_ones(len(positions), 1), positions, tokens).float().sum((1, 2))
        total: Any = 0.0
        for lower, upper in pairwise(states):
            total = total + gram_flow((lower[0], upper[0]), (lower[1], upper[1]), lengths)
        return total / (len(states) - 1)
