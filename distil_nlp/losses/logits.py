"""Matching the output: soft targets from the teacher, hard targets from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TopLogits:
    """A vocabulary's logits of which the highest are known, and of the others their sum.

    Attributes:
        words: which ones are known, (rows, k).
        values: their logits, (rows, k).
        others: log Σ exp(logit / T) over the words that are not known, (rows,), at the temperature T of their use.
    """

    words: Tensor
    values: Tensor
    others: Tensor

    @classmethod
    def of(cls, logits: Tensor, k: int, temperature: float) -> TopLogits:
        """The k highest of (rows, vocabulary)."""
        values, words = logits.topk(min(k, logits.shape[1]), dim=1)
        rest = logits.float().scatter(1, words, -math.inf) / temperature
        return cls(words, values, rest.logsumexp(1))

    def index_select(self, dim: int, rows: Tensor) -> TopLogits:
        """Some of the rows, as of a tensor."""
        return TopLogits(*(one.index_select(dim, rows) for one in (self.words, self.values, self.others)))

    def logits(self, start: int, stop: int) -> TopLogits:
        """A run of rows, as of a vocabulary that is yet to be projected."""
        return TopLogits(self.words[start:stop], self.values[start:stop], self.others[start:stop])


def soft_target_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · Σ_rows KL(softmax(teacher / T) ‖ softmax(student / T)), in nats.

    The factor T² keeps the gradient's size the same for every temperature; for large T it tends to
    (centred(student) − centred(teacher)) / classes. A KL, so 0 where student equals teacher; a soft
    cross-entropy has the same gradient and lies higher by the teacher's entropy.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0 / got {temperature}")
    _same_shape(student, teacher)
    student_log = F.log_softmax(student.float() / temperature, dim=-1)
    teacher_log = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    return F.kl_div(student_log, teacher_log, reduction="sum", log_target=True) * temperature**2


def soft_target_kl_top(student: Tensor, teacher: TopLogits, temperature: float = 1.0) -> Tensor:
    """T² · Σ_rows KL in nats between distributions over the teacher's likeliest words and, as one, all others.

    Merging words can only lower a KL, so it lies below that of `soft_target_kl`, by little where the likeliest words
    have nearly all the mass; with all words known it is the same. The gradient pulls the others' mass as a whole.

    Args:
        student: logits, (rows, vocabulary).
        teacher: (rows,); its `others` were summed at this same temperature.
        temperature: T > 0.
    """
    student = student.float() / temperature
    theirs, ours = teacher.values.detach().float() / temperature, student.gather(1, teacher.words)
    if teacher.words.shape[1] < student.shape[1]:
        rest = student.scatter(1, teacher.words, -math.inf).logsumexp(1)
        theirs, ours = torch.cat([theirs, teacher.others[:, None]], 1), torch.cat([ours, rest[:, None]], 1)
    both = ours.log_softmax(1), theirs.log_softmax(1)
    return F.kl_div(*both, reduction="sum", log_target=True) * temperature**2


def soft_target_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows (student − teacher)², the regression form of `soft_target_kl`.

    It is twice the KL between two Gaussians of unit variance. Shapes (rows, 1) or (rows,), both alike.
    """
    _same_shape(student, teacher)
    return F.mse_loss(student.float(), teacher.detach().float(), reduction="sum")


def hard_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_rows −log softmax(logits)[label], in nats: masked-LM loss and classification loss alike.

    Args:
        logits: (rows, classes).
        labels: (rows,), integers in [0, classes).
    """
    return F.cross_entropy(logits.float(), labels, reduction="sum")


def hard_mse(outputs: Tensor, labels: Tensor) -> Tensor:
    """Σ_rows (output − label)² for regression. `outputs` is (rows, 1), `labels` (rows,)."""
    outputs = outputs.float().squeeze(-1)
    _same_shape(outputs, labels)
    return F.mse_loss(outputs, labels.float(), reduction="sum")


def _same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected the same shape on both sides / got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
