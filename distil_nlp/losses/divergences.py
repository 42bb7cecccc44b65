"""Divergences between softened outputs other than the KL of `soft_targets`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.soft_targets import softened
from distil_nlp.objective import Fraction, RowSetName, Temperature, TemperedTerm, Weight


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · Σ_rows KL(softmax(student / T) ‖ softmax(teacher / T)), in nats: `soft_target_kl`, sides swapped.

    It penalises classes that are likely for the student and unlikely for the teacher, and lets a small student leave
    out some of the teacher's modes. 0 at equality.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: MiniLLM, arXiv:2306.08543, section 2, there for whole sequences. TRL's loss has no factor T².
    """
    student_log_probs, teacher_log_probs = softened(student, teacher, temperature)
    return F.kl_div(teacher_log_probs, student_log_probs, reduction="sum", log_target=True) * temperature**2


def jensen_shannon(student: Tensor, teacher: Tensor, temperature: float = 1.0, beta: float = 0.5) -> Tensor:
    """Return T² · Σ_rows β · KL(p ‖ m) + (1 − β) · KL(q ‖ m), in nats, with m = β · p + (1 − β) · q.

    p is the teacher's softened output, q the student's. 0 at equality. Without T² a row is at most the entropy of
    (β, 1 − β): log 2 for the Jensen-Shannon divergence itself, which has β = ½. Divided by β it tends to KL(p ‖ q) for
    β → 0; divided by 1 − β to KL(q ‖ p) for β → 1.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.
        beta: β, the teacher's fraction of the mixture, in (0, 1).

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: GKD, arXiv:2306.13649, section 2 (generalised Jensen-Shannon divergence). TRL's has no factor T².
    """
    student_log_probs, teacher_log_probs = softened(student, teacher, temperature)
    mixture = torch.logaddexp(teacher_log_probs + math.log(beta), student_log_probs + math.log1p(-beta))
    teacher_kl = F.kl_div(mixture, teacher_log_probs, reduction="sum", log_target=True)
    student_kl = F.kl_div(mixture, student_log_probs, reduction="sum", log_target=True)
    return (beta * teacher_kl + (1 - beta) * student_kl) * temperature**2


class ReverseKL(TemperedTerm):
    """`reverse_kl`: T² · KL(student ‖ teacher) in nats per row.

    Args:
        temperature: T, a number or a `Schedule`.
        rows: see `ChosenRowsTerm`.
    """

    name, outputs = "reverse_kl", ("distribution", "spans")
    unit = "nats × T²"
    formula = "KL(student ‖ teacher) of the softened outputs, times T²"
    paper = "2306.08543"
    softened_loss = staticmethod(reverse_kl)


class JensenShannon(TemperedTerm):
    """`jensen_shannon`: T² · generalised Jensen-Shannon divergence in nats per row.

    Args:
        temperature: T, a number or a `Schedule`.
        beta: β, the teacher's fraction of the mixture.
        rows: see `ChosenRowsTerm`.
    """

    name, outputs = "jensen_shannon", ("distribution", "spans")
    unit = "nats × T²"
    formula = (
        "Jensen-Shannon divergence between the softened outputs, with a fraction β of the teacher's in the mixture, "
        "times T²"
    )
    paper = "2306.13649"

    def __init__(
        self, weight: Weight = 1.0, temperature: Temperature = 2.0, beta: Fraction = 0.5, rows: RowSetName | None = None
    ):
        super().__init__(weight, temperature, rows)
        self.beta = beta

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return jensen_shannon(student, teacher, self.temperature(progress), self.beta)
