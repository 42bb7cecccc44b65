"""Attention-based layer projection: each layer of the student chooses among all of the teacher's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distil_nlp.losses.numerics import at_least_fp32, matmul_fp32
from distil_nlp.objective import CrossTerm, check_same_shape
from distil_nlp.signals.types import Signals


def alp_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows mean_width (student − combined)², where combined = Σ_layers softmax(teacher · student) teacher.

    0 where each row is its own combination, as where it equals all of the teacher's layers. The weights are functions
    of the student, and gradient flows through them. Scores are not scaled, so that among wide states one layer often
    has nearly all the weight.

    Args:
        student: (rows, width).
        teacher: (rows, layers, width); no gradient flows to it.

    Raises:
        ValueError: if rows or widths differ.

    Reference: ALP-KD, arXiv:2012.14022.
    """
    check_same_shape(student, teacher[:, 0], "(rows, width) and (rows, layers, width)")
    student, teacher = at_least_fp32(student), at_least_fp32(teacher.detach())
    shares = matmul_fp32(teacher, student[..., None]).softmax(1)
    return (student - (shares * teacher).sum(1)).square().mean(-1).sum()


class ALPKD(CrossTerm):
    """`alp_kd`: squared error between the [CLS] state of each student block and its attention-weighted combination of
    all the teacher's, per sequence, the mean over the student's blocks. A student of another width is projected first,
    which the paper has not."""

    name, paper = "alp_kd", "2012.14022"
    unit = "squared difference"
    formula = (
        "the squared error between each layer's [CLS] state and the combination of all the teacher's that it attends to"
    )

    def counted_rows(self) -> str:
        return "cls"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        ours, theirs = self.blocks_of(student, teacher)
        theirs = torch.stack(theirs, 1)
        return sum(alp_kd(one, theirs) for one in ours) / len(ours)
