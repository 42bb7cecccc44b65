"""Regression to the labels, until the student is as close to them as the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distil_nlp.objective import LabelTerm, NonNegative, Weight, check_same_shape
from distil_nlp.signals.types import Signals


def bounded_regression(student: Tensor, teacher: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """Return Σ_rows (student − label)² where that + margin > (teacher − label)², and 0 elsewhere.

    So the teacher is a bound, not a target: a row counts while the student's squared error exceeds the teacher's minus
    the margin. 0 at equality if the margin is 0.

    Args:
        student: outputs, (rows, 1).
        teacher: outputs, (rows, 1); no gradient flows to them.
        labels: (rows,).
        margin: in squared units of the label, at least 0.

    Raises:
        ValueError: if the numbers of labels and outputs differ.

    Reference: Chen, Choi, Yu, Han, Chandraker (2017), "Learning efficient object detection models with knowledge
    distillation", NeurIPS, section 3 (teacher bounded regression loss).
    """
    student, teacher = student.float().squeeze(-1), teacher.detach().float().squeeze(-1)
    check_same_shape(student, teacher)
    check_same_shape(student, labels, "an output for each label", ("outputs", "labels"))
    error, bound = (student - labels.float()).square(), (teacher - labels.float()).square()
    return torch.where(error.detach() + margin > bound, error, 0.0).sum()


class BoundedRegression(LabelTerm):
    """`bounded_regression`: squared error to the label, until it is below the teacher's by a margin.

    One value per labelled row. The paper adds it to a plain regression loss, here `hard_label`: alone it gives no
    gradient to rows where the student is better than its teacher.

    Args:
        margin: the distance below the teacher's squared error at which a row no longer counts.
    """

    name, outputs = "bounded_regression", ("number",)
    unit = "squared error"
    formula = "squared error to the label, where it exceeds the teacher's minus a margin"
    paper = None

    def __init__(self, weight: Weight = 1.0, margin: NonNegative = 0.0):
        super().__init__(weight)
        self.margin = margin

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        return bounded_regression(logits, self.logits(teacher, batch), labels, self.margin)
