"""The flow of the solution procedure: how a layer's states go together with those of the next."""

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
    """Σ_sequences mean_entries (G_student − G_teacher)²; 0 at equality.

    G = (1 / tokens) Σ_tokens lower upperᵀ, (width, width), of a lower and an upper layer of one model. The paper sums
    the entries; their mean keeps a weight comparable between widths.

    Args:
        student, teacher: lower and upper, (sequences, tokens, width) each, 0 at padding. No gradient flows to the
            teacher.
        lengths: tokens of each sequence, (sequences,); a sequence of none adds 0.

    Raises:
        ValueError: if the shapes differ.

    Reference: Yim, Joo, Bae, Kim, A Gift from Knowledge Distillation, CVPR 2017: the FSP matrix and loss.
    """
    for ours, theirs in zip(student, teacher, strict=True):
        check_same_shape(ours, theirs, "(sequences, tokens, width) alike")
    mine = matmul_fp32(student[0].transpose(1, 2), student[1])
    other = matmul_fp32(teacher[0].detach().transpose(1, 2), teacher[1].detach())
    difference = (mine - other) / lengths.clamp_min(1)[:, None, None]
    return difference.square().mean((1, 2)).sum()


class GramFlow(SequenceTerm):
    """`gram_flow`: squared error of the Gram matrices between each paired layer and the next one paired (FSP), per
    sequence, the mean over these steps. A student of another width is projected. Holds matrices of width² for each
    sequence and step.

    Args:
        layers: two pairs or more, from below; `all` compares what each student layer makes of its input with what the
            teacher's layers up to the same depth do.
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
                f"objective.gram_flow.layers: expected two pairs of layers or more / got {self.layers}, which is "
                f"{len(self.pairs)} / a flow goes from one layer to another / use layers=all"
            )

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        states, places, tokens = self.states(student, teacher, batch), batch["rows"]["all"], batch["input_ids"]
        lengths = by_sequence(states[0][0].new_ones(len(places), 1), places, tokens).float().sum((1, 2))
        total = 0.0
        for lower, upper in pairwise(states):
            total = total + gram_flow((lower[0], upper[0]), (lower[1], upper[1]), lengths)
        return total / (len(states) - 1)
