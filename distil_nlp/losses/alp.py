"""Attention-based layer projection: each layer of the student attends to all layers of the teacher."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distil_nlp.losses.numerics import at_least_fp32, matmul_fp32
from distil_nlp.objective import CrossTerm, check_same_shape
from distil_nlp.signals.types import Signals


def alp_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows mean_width (student − combined)², where combined = Σ_layers softmax(teacher · student) teacher.

    0 where each row equals its own combination, for instance where it equals all of the teacher's layers. The attention
    weights are functions of the student, and gradient flows through them. Scores are not scaled, so that among wide
    states one layer often has nearly all the weight.

    Args:
        student: (rows, width).
        teacher: (rows, layers, width); no gradient flows to it.

    Raises:
        ValueError: if rows or widths differ.

    Reference: ALP-KD, arXiv:2012.14022.
    """
    check_same_shape(student, teacher[:, 0], "(rows, width) and (rows, layers, width)")
    student, teacher = at_least_fp32(student), at_least_fp32(teacher.detach())
    weights = matmul_fp32(teacher, student[..., None]).softmax(1)
    return (student - (weights * teacher).sum(1)).square().mean(-1).sum()


class ALPKD(CrossTerm):
    """`alp_kd`: squared error between a student block's [CLS] state and a combination of all the teacher's.

    The combination is weighted by attention of the student's state to the teacher's. One value per sequence, the mean
    over the student's blocks. A student of another width is projected first, which the paper does not do.
    """

    name, paper = "alp_kd", "2012.14022"
    unit = "squared difference"
    formula = (
        "the squared error between each layer's [CLS] state and its attention-weighted combination of all the teacher's"
    )

    def counted_rows(self) -> str:
        return "cls"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        student_blocks, teacher_blocks = self.blocks_of(student, teacher)
        stacked = torch.stack(teacher_blocks, 1)
        total: Any = sum(alp_kd(states, stacked) for states in student_blocks)
        return total / len(student_blocks)
