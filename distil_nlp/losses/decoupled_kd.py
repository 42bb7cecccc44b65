"""Soft targets in two parts: how likely the right class is, and how the other classes share the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distil_nlp.losses.soft_targets import softened
from distil_nlp.objective import LabelTerm, NonNegative, Temperature, Weight, as_schedule
from distil_nlp.signals.types import Signals


def decoupled_kd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 8.0,
) -> Tensor:
    """T² · Σ_rows α · TCKD + β · NCKD, in nats; 0 at equality.

    With p the teacher's softened output, q the student's and y the label, TCKD is KL between (p_y, 1 − p_y) and
    (q_y, 1 − q_y), and NCKD is KL between p and q over the classes other than y, each made to sum to 1. α = 1 and
    β = 1 − p_y give `soft_target_kl`. Of two classes NCKD is 0.

    Args:
        student, teacher: logits, (rows, classes), of two classes or more.
        labels: (rows,), integers in [0, classes).
        temperature: T > 0.
        alpha, beta: weights of the two parts, numbers or (rows,).

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: DKD, arXiv:2203.08679, section 3; T² as in the authors' code. They choose β by the teacher, from 0.5
    (ImageNet, with T = 1) to 8 (CIFAR-100, with T = 4).
    """
    ours, theirs = softened(student, teacher, temperature)
    label = labels.unsqueeze(1)
    ours_target, ours_rest, ours_others = _parts(ours, label)
    theirs_target, theirs_rest, theirs_others = _parts(theirs, label)
    of_target = _kl(theirs_target, ours_target) + _kl(theirs_rest, ours_rest)
    of_others = (theirs_others.exp().scatter(1, label, 0.0) * (theirs_others - ours_others)).sum(1)
    return (alpha * of_target + beta * of_others).sum() * temperature**2


def _parts(log: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the label, (rows,), of all others together, (rows,), and of each among the others, (rows,
    classes), which is finite and has no meaning at the label."""
    rest = log.scatter(1, label, -math.inf).logsumexp(1)
    return log.gather(1, label).squeeze(1), rest, log - rest.unsqueeze(1)


def _kl(theirs: Tensor, ours: Tensor) -> Tensor:
    return theirs.exp() * (theirs - ours)


class DecoupledKD(LabelTerm):
    """`decoupled_kd`: T² · (α · KL of right class against rest + β · KL among the wrong classes), in nats per labelled
    row or masked token (DKD).

    Args:
        temperature: T, a number or a `Schedule`.
        alpha: weight of the right class's part.
        beta: weight of the wrong classes' part.
    """

    name, outputs = "decoupled_kd", ("distribution",)
    unit = "nats × T²"
    formula = "α · KL between target class and rest + β · KL among the other classes, of the softened outputs, times T²"
    paper = "2203.08679"

    def __init__(
        self,
        weight: Weight = 1.0,
        temperature: Temperature = 4.0,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
    ):
        super().__init__(weight)
        self.temperature, self.alpha, self.beta = as_schedule(temperature), alpha, beta

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        theirs = self.logits(teacher, batch)
        return decoupled_kd(logits, theirs, labels, self.temperature(progress), self.alpha, self.beta)
