"""Teacher-free regularisers: smoothed labels, and a virtual teacher made from the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.objective import Fraction, LabelTerm, Temperature, Weight, as_schedule
from distil_nlp.signals.types import Signals


def label_smoothing(logits: Tensor, labels: Tensor, epsilon: float = 0.1) -> Tensor:
    """Return Σ_rows −Σ_classes p · log softmax(logits), in nats, with p = (1 − ε) · (1 at the label) + ε / classes.

    Its minimum is the entropy of p, where softmax(logits) is p; ε = 0 is `hard_cross_entropy`.

    Args:
        logits: (rows, classes).
        labels: (rows,), integers in [0, classes).
        epsilon: ε, the probability that is moved from the label to all classes evenly, the label included.

    Reference: Szegedy et al. (2015), arXiv:1512.00567, section 7.
    """
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=epsilon)


def virtual_teacher(logits: Tensor, labels: Tensor, temperature: float = 20.0, correct: float = 0.99) -> Tensor:
    """Return T² · Σ_rows KL(p_T ‖ softmax(logits / T)), in nats, with p_T = softmax(log p / T) and p a virtual teacher.

    p is `correct` at the label, and the rest is spread evenly over the other classes. 0 where softmax(logits) is p.

    Args:
        logits: (rows, classes), of two classes or more.
        labels: (rows,), integers in [0, classes).
        temperature: T > 0.
        correct: the virtual teacher's probability of the label, in (0, 1).

    Raises:
        ValueError: if T is not positive, or there is one class.

    Reference: Tf-KD_reg, arXiv:1909.11723, section 4. The authors' code softens differently: softmax(p / T) against an
    unsoftened student.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(f"expected two classes or more / got {classes}")
    log_p = torch.full_like(logits, math.log((1 - correct) / (classes - 1)), dtype=torch.float32)
    return soft_target_kl(logits, log_p.scatter(1, labels.unsqueeze(1), math.log(correct)), temperature)


class LabelSmoothing(LabelTerm):
    """`label_smoothing`: cross-entropy with smoothed labels, in nats per labelled row or masked token.

    It replaces `hard_label`; used together with it, the smoothing is diluted.

    Args:
        epsilon: ε, the fraction of a label that is spread over all classes.
    """

    name, needs_teacher, outputs = "label_smoothing", False, ("distribution",)
    unit = "nats"
    formula = "cross-entropy with labels of which a fraction ε is spread over all classes"
    paper = "1512.00567"

    def __init__(self, weight: Weight = 1.0, epsilon: Fraction = 0.1):
        super().__init__(weight)
        self.epsilon = epsilon

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        return label_smoothing(logits, labels, self.epsilon)


class VirtualTeacher(LabelTerm):
    """`virtual_teacher`: T² · KL to a virtual teacher that is right with a fixed probability, in nats (Tf-KD_reg).

    One value per labelled row or masked token.

    Args:
        temperature: T, a number or a `Schedule`.
        correct: the virtual teacher's probability of the label.
    """

    name, needs_teacher, outputs = "virtual_teacher", False, ("distribution",)
    unit = "nats × T²"
    formula = "KL(virtual teacher ‖ student) of the softened outputs, times T²"
    paper, is_variant = "1909.11723", True

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 20.0, correct: Fraction = 0.99):
        super().__init__(weight)
        self.temperature, self.correct = as_schedule(temperature), correct

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        return virtual_teacher(logits, labels, self.temperature(progress), self.correct)
