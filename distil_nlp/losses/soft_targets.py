"""Soft targets: losses on the teacher's output, softened by a temperature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.kernels.vocabulary import FusedTerm
from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import ModelShape, RowSetName, Temperature, TemperedTerm, Weight, check_same_shape
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.tasks import TaskKind
from distil_nlp.tasks.kind import Output


def soft_target_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, by_confidence: bool = False) -> Tensor:
    """Return T² · Σ_rows KL(softmax(teacher / T) ‖ softmax(student / T)), in nats.

    The factor T² keeps the size of the gradient the same for every temperature; for large T the gradient tends to
    (centred(student) − centred(teacher)) / classes. A KL, so 0 where student equals teacher; a soft cross-entropy has
    the same gradient and exceeds it by the teacher's entropy.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.
        by_confidence: True to weight each row by the teacher's `confidence` in it.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2.
    """
    student_log_probs, teacher_log_probs = softened(student, teacher, temperature)
    if not by_confidence:
        return F.kl_div(student_log_probs, teacher_log_probs, reduction="sum", log_target=True) * temperature**2
    per_row = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True).sum(-1)
    return (confidence(teacher) * per_row).sum() * temperature**2


def confidence(logits: Tensor) -> Tensor:
    """Return 1 − H(softmax(logits)) ÷ log classes, (rows,).

    1 where one class is certain, 0 where all are equally likely. No gradient flows to the logits.

    Args:
        logits: (rows, classes).
    """
    log_probs = logits.detach().float().log_softmax(-1)
    return 1 + (log_probs.exp() * log_probs).sum(-1) / math.log(logits.shape[-1])


def softened(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log softmax(logits / T) of student and teacher in fp32, the teacher's without gradient.

    Raises:
        ValueError: if T is not positive, or the shapes differ.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0 / got {temperature}")
    check_same_shape(student, teacher)
    student_log_probs = F.log_softmax(student.float() / temperature, dim=-1)
    return student_log_probs, F.log_softmax(teacher.detach().float() / temperature, dim=-1)


def soft_target_kl_top(student: Tensor, teacher: TopLogits, temperature: float = 1.0) -> Tensor:
    """Return T² · Σ_rows KL in nats between distributions over the teacher's likeliest words and, as one, all others.

    Merging words can only lower a KL, so it is below `soft_target_kl`, by little where the tail probability is small;
    with all words known both are equal. The gradient acts on the tail probability as a whole.

    Args:
        student: logits, (rows, vocabulary).
        teacher: the k highest logits of each row; its `others` were summed at this same temperature.
        temperature: T > 0.
    """
    student = student.float() / temperature
    teacher_logits, student_logits = teacher.values.detach().float() / temperature, student.gather(1, teacher.words)
    if teacher.words.shape[1] < student.shape[1]:
        student_tail = student.scatter(1, teacher.words, -math.inf).logsumexp(1)
        teacher_logits = torch.cat([teacher_logits, teacher.others[:, None]], 1)
        student_logits = torch.cat([student_logits, student_tail[:, None]], 1)
    log_probs = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    return F.kl_div(*log_probs, reduction="sum", log_target=True) * temperature**2


def soft_target_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows (student − teacher)², the regression form of `soft_target_kl`.

    It is twice the KL between two Gaussians of unit variance.

    Args:
        student: outputs, (rows, 1) or (rows,).
        teacher: outputs of the same shape; no gradient flows to them.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(student, teacher)
    return F.mse_loss(student.float(), teacher.detach().float(), reduction="sum")


def soft_target_bernoulli_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · Σ_rows Σ_classes KL(Bernoulli(σ(teacher / T)) ‖ Bernoulli(σ(student / T))), in nats.

    The form of `soft_target_kl` for labels that do not exclude each other: as the labels of a row are independent, the
    sum over classes is the KL between the two distributions of the whole set. 0 at equality. It uses log σ(z) and
    log σ(−z), so that no probability underflows. For large T it tends to ⅛ · Σ (student − teacher)².

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0 / got {temperature}")
    check_same_shape(student, teacher)
    own, target = at_least_fp32(student) / temperature, at_least_fp32(teacher.detach()) / temperature
    has = F.kl_div(F.logsigmoid(own), F.logsigmoid(target), reduction="sum", log_target=True)
    has_not = F.kl_div(F.logsigmoid(-own), F.logsigmoid(-target), reduction="sum", log_target=True)
    return (has + has_not) * temperature**2


SOFT_LOSSES: Mapping[Output, Callable[[Tensor, Tensor, float], Tensor]] = {
    "distribution": soft_target_kl,
    "number": lambda student, teacher, temperature: soft_target_mse(student, teacher),
    "labels": soft_target_bernoulli_kl,
    "score": lambda student, teacher, temperature: soft_target_mse(student, teacher),
    "spans": soft_target_kl,
}
"""Meaning of the outputs → (student, teacher, T) → Σ over rows of what soft targets cost."""


class SoftTargetKL(TemperedTerm):
    """`soft_target_kl`: T² · KL(teacher ‖ student) of the softened outputs, in nats per row.

    For regression it is the squared error to the teacher's output; for multi-label classification the sum over classes
    of the KL between the two probabilities of having the label; for question answering the mean of the KL of start and
    of end, over allowed positions.

    Args:
        temperature: T, a number or a `Schedule`. Has no meaning for regression.
        rows: see `ChosenRowsTerm`.
        by_confidence: True to weight rows by the teacher's `confidence`, so that the student is not trained on what the
            teacher does not know either. The sum is still divided by the number of rows: the term is smaller than
            without weights, and larger the more confident the teacher is.
    """

    name, accepts_top_logits = "soft_target_kl", True
    outputs = ("distribution", "number", "labels", "spans")
    unit = "nats × T²"
    formula = "KL(teacher ‖ student) of the softened outputs, times T²"
    formula_of_regression = "squared error to the teacher’s output"
    formulas = {
        "labels": "KL(teacher ‖ student) of each label’s softened probability, summed over labels, times T²",
        "spans": "KL(teacher ‖ student) of softened start and end, over allowed positions, mean of the two, times T²",
    }
    paper = "1503.02531"

    def __init__(
        self,
        weight: Weight = 1.0,
        temperature: Temperature = 2.0,
        rows: RowSetName | None = None,
        by_confidence: bool = False,
    ):
        super().__init__(weight, temperature, rows)
        self.by_confidence = by_confidence
        self.accepts_top_logits = not by_confidence  # an entropy needs all words

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if self.kind.output != "distribution" and self.by_confidence:
            raise UserError(
                "objective.soft_target_kl.by_confidence",
                f"false for {self.kind.title}",
                "true",
                why="the weight is an entropy of one distribution over classes, which its outputs are not",
                fix="leave it out",
            )

    def fused(self, progress: float) -> FusedTerm | None:
        is_plain = self.kind.output == "distribution" and not self.by_confidence
        return FusedTerm("teacher", self.temperature(progress)) if is_plain else None

    def loss(self, student: Tensor, teacher: Any, progress: float) -> Tensor:
        if isinstance(teacher, TopLogits):
            return soft_target_kl_top(student, teacher, self.temperature(progress))
        if self.by_confidence:
            return soft_target_kl(student, teacher, self.temperature(progress), by_confidence=True)
        return SOFT_LOSSES[self.kind.output](student, teacher, self.temperature(progress))
