"""Cross-entropy of the student with the teacher's softened output."""

from __future__ import annotations

from torch import Tensor

from distil_nlp.losses.soft_targets import softened
from distil_nlp.objective import RowSetName, Temperature, TemperedTerm, Weight


def soft_target_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · Σ_rows −Σ_classes p · log q, in nats, with p = softmax(teacher / T) and q = softmax(student / T).

    It has the gradient of `soft_target_kl` and exceeds it by T² · the entropy of p, which is its minimum, at equality.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2; at T = 1 the prediction-layer loss of
    TinyBERT, arXiv:1909.10351, equation 10.
    """
    student_log_probs, teacher_log_probs = softened(student, teacher, temperature)
    return -(teacher_log_probs.exp() * student_log_probs).sum() * temperature**2


class SoftTargetCrossEntropy(TemperedTerm):
    """`soft_target_cross_entropy`: T² · cross-entropy with the teacher's softened output, in nats per row.

    `soft_target_kl` has the same gradient, and a curve that ends at 0.

    Args:
        temperature: T, a number or a `Schedule`; 1 is TinyBERT's.
        rows: see `ChosenRowsTerm`.
    """

    name, outputs = "soft_target_cross_entropy", ("distribution", "spans")
    unit = "nats × T²"
    formula = "cross-entropy of the student's softened output with the teacher's, times T²"
    paper = "1909.10351"
    softened_loss = staticmethod(soft_target_cross_entropy)

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 1.0, rows: RowSetName | None = None):
        super().__init__(weight, temperature, rows)
