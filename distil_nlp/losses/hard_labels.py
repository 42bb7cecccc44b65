"""Losses on hard labels, the data's own targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.objective import LabelTerm, check_same_shape
from distil_nlp.signals.types import Signals


def hard_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_rows −log softmax(logits)[label], in nats, the loss of masked language models and classifiers.

    Args:
        logits: (rows, classes).
        labels: (rows,), integers in [0, classes).
    """
    return F.cross_entropy(logits.float(), labels, reduction="sum")


def hard_mse(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_rows (output − label)², the loss of a regression.

    Args:
        outputs: (rows, 1).
        labels: (rows,).

    Raises:
        ValueError: if the numbers of outputs and labels differ.
    """
    outputs = outputs.float().squeeze(-1)
    check_same_shape(outputs, labels, "an output for each label", ("outputs", "labels"))
    return F.mse_loss(outputs, labels.float(), reduction="sum")


class HardLabel(LabelTerm):
    """`hard_label`: cross-entropy with the data's own labels; squared error for regression.

    Rows are masked tokens (language modelling), first sub-words of words (token classification) or labelled rows; those
    labelled −100 or NaN are excluded.
    """

    name, needs_teacher = "hard_label", False
    unit = "nats"
    formula = "cross-entropy with the data’s own labels"
    formula_of_regression = "squared error to the data’s own values"

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        loss = hard_mse if self.kind.output == "number" else hard_cross_entropy
        return loss(logits, labels)


class MaskedAccuracy(LabelTerm):
    """`accuracy`, for evaluation: the number of masked tokens whose most likely word is the right one."""

    name, needs_teacher = "accuracy", False

    def __init__(self):
        super().__init__(weight=0.0)

    def counted_rows(self) -> str:
        return "masked"

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        return (logits.argmax(-1) == labels).sum()
