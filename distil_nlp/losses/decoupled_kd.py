"""Soft targets in two parts: the probability of the target class, and the distribution among the other classes."""

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
    """Return T² · Σ_rows α · TCKD + β · NCKD, in nats; 0 at equality.

    With p the teacher's softened output, q the student's and y the label, TCKD is the KL between (p_y, 1 − p_y) and
    (q_y, 1 − q_y), and NCKD is the KL between p and q over the classes other than y, each normalised to sum to 1. α = 1
    and β = 1 − p_y give `soft_target_kl`. With two classes NCKD is 0.

    Args:
        student: logits, (rows, classes), of two classes or more.
        teacher: logits, (rows, classes); no gradient flows to them.
        labels: (rows,), integers in [0, classes).
        temperature: T > 0.
        alpha: α, the weight of TCKD, a number or (rows,).
        beta: β, the weight of NCKD, a number or (rows,).

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: DKD, arXiv:2203.08679, section 3; T² as in the authors' code. They choose β by the teacher, from 0.5
    (ImageNet, with T = 1) to 8 (CIFAR-100, with T = 4), and let the term's weight rise over the first 20 of 240 epochs
    (CIFAR-100) or the first of 100 (ImageNet). A `schedule` of the weight rises until the last step instead.
    """
    student_log_probs, teacher_log_probs = softened(student, teacher, temperature)
    label = labels.unsqueeze(1)
    student_target, student_rest, student_others = _split_at_label(student_log_probs, label)
    teacher_target, teacher_rest, teacher_others = _split_at_label(teacher_log_probs, label)
    target_kl = _kl(teacher_target, student_target) + _kl(teacher_rest, student_rest)
    others_kl = (teacher_others.exp().scatter(1, label, 0.0) * (teacher_others - student_others)).sum(1)
    return (alpha * target_kl + beta * others_kl).sum() * temperature**2


def _split_at_label(log_probs: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities of the label, of all other classes together, and of each among the others.

    Shapes (rows,), (rows,) and (rows, classes); the last is finite and has no meaning at the label.
    """
    rest = log_probs.scatter(1, label, -math.inf).logsumexp(1)
    return log_probs.gather(1, label).squeeze(1), rest, log_probs - rest.unsqueeze(1)


def _kl(teacher_log_probs: Tensor, student_log_probs: Tensor) -> Tensor:
    """Return the addend of KL(teacher ‖ student) for each entry."""
    return teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)


class DecoupledKD(LabelTerm):
    """`decoupled_kd`: T² · (α · KL of target class against rest + β · KL among the other classes), in nats (DKD).

    One value per labelled row or masked token. With two classes it is α · `soft_target_kl`, since NCKD is 0.

    Args:
        temperature: T, a number or a `Schedule`.
        alpha: α, the weight of the target class's part.
        beta: β, the weight of the other classes' part.
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
        teacher_logits = self.logits(teacher, batch)
        return decoupled_kd(logits, teacher_logits, labels, self.temperature(progress), self.alpha, self.beta)
