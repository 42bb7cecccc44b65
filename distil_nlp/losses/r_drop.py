"""R-Drop: the student's outputs in two dropout passes over the same rows are to agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.objective import (
    ModelShape,
    OutputTerm,
    RowSetName,
    Weight,
    check_same_shape,
    rows_of_outputs,
    validate_row_set,
)
from distil_nlp.signals.types import Signals
from distil_nlp.tasks import TaskKind


def r_drop(first: Tensor, second: Tensor) -> Tensor:
    """Return Σ_rows KL(first ‖ second) + KL(second ‖ first) of the softmax of two passes' logits, in nats.

    Gradients flow into both passes. 0 where they agree. Divided by the rows of both passes together it is the paper's
    L_KL, the mean over rows of ½ · (KL₁₂ + KL₂₁).

    Args:
        first: logits of the first pass, (rows, classes).
        second: logits of the second pass, (rows, classes).

    Raises:
        ValueError: if the shapes differ.

    Reference: R-Drop, Liang et al. 2021, arXiv:2106.14448, section 2: L = L_NLL + α · L_KL, with
    L_NLL = −log P₁(y|x) − log P₂(y|x) and L_KL = ½ · (KL(P₁ ‖ P₂) + KL(P₂ ‖ P₁)).
    """
    check_same_shape(first, second, names=("first", "second"))
    log_p, log_q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()


def r_drop_mse(first: Tensor, second: Tensor) -> Tensor:
    """Return 2 · Σ_rows (first − second)², the regression form of `r_drop`, from the outputs of two passes.

    Divided by the rows of both passes together it is the mean over rows of (first − second)².

    Args:
        first: outputs of the first pass, (rows, 1) or (rows,).
        second: outputs of the second pass, of the same shape.

    Raises:
        ValueError: if the shapes differ.

    Reference: the authors' code (`MSELoss` between the passes); the paper has no formula for regression.
    """
    check_same_shape(first, second, names=("first", "second"))
    return 2 * F.mse_loss(first.float(), second.float(), reduction="sum")


class RDrop(OutputTerm):
    """`r_drop`: ½ · (KL₁₂ + KL₂₁) in nats between two dropout passes of the student over a row (R-Drop).

    For regression it is the squared difference of the passes' outputs. The temperature is 1.

    The student reads each training row twice, in one batch of twice the rows, with other dropout in each; the teacher
    reads it once. All other terms count both passes, so that `hard_label` is ½ · (CE₁ + CE₂). The paper's loss has
    CE₁ + CE₂ + α · L_KL: weights 1 for `hard_label` and α / 2 here are half of it. The README of the authors' code has
    ½ · (CE₁ + CE₂) + α · L_KL, which is weight α here. Their `modeling_bert.py` sums the KL over the batch, where its
    cross-entropy is a mean, so that α depends on the batch size there.

    There are no two passes in evaluation, and the term has no value there.

    Args:
        rows: see `SoftTerm`.
    """

    name, needs_teacher, compares_passes = "r_drop", False, True
    unit = "nats"
    formula = "half the KL in both directions between two dropout passes of the student"
    formula_of_regression = "squared difference of the student’s outputs in two dropout passes"
    paper = "2106.14448"

    def __init__(self, weight: Weight = 1.0, rows: RowSetName | None = None):
        super().__init__(weight)
        self.row_set = rows

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if self.kind.level == "token":
            validate_row_set(self, self.row_set)

    def counted_rows(self) -> str:
        return rows_of_outputs(self.row_set, self.kind)

    @property
    def reads_masked_tokens(self) -> bool:
        return self.row_set in (None, "masked")

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        logits = self.logits(student, batch)
        if batch.get("passes", 1) == 1:
            return logits.sum() * 0.0
        loss = r_drop_mse if self.kind.output == "number" else r_drop
        return loss(logits[0::2], logits[1::2])
