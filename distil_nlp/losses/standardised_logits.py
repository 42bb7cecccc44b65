"""Soft targets on z-scores of logits, so that a student need not match the logits' scale."""

from __future__ import annotations

import torch
from torch import Tensor

from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.objective import TemperedTerm

_CONSTANT = 1e-10
"""The largest variance, relative to the mean square, that may be no more than fp32's rounding of equal numbers."""


def standardise(values: Tensor, dim: int = -1) -> Tensor:
    """Return (value − mean) / σ along a dimension, σ² the mean squared deviation, in fp32.

    Values that are constant to fp32's precision have no σ, and are only centred.
    """
    values = values.float()
    centred = values - values.mean(dim, keepdim=True)
    variance = centred.square().mean(dim, keepdim=True)
    least = _CONSTANT * values.detach().square().mean(dim, keepdim=True) + torch.finfo(torch.float32).tiny
    return centred * torch.where(variance > least, variance, 1.0).rsqrt()


def standardised_logits(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Return T² · Σ_rows KL(softmax(z(teacher) / T) ‖ softmax(z(student) / T)), in nats, z the z-score within a row.

    0 where the logits agree up to a positive factor and a constant of each row, so the student's confidence is free. It
    needs another term, such as `hard_label`, to be calibrated. Two classes have z-scores of ±1 whatever the logits, and
    give no gradient.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: Logit Standardization in Knowledge Distillation, arXiv:2403.01427, where the term has weight 9
    beside cross-entropy. The authors' code divides by classes − 1 in σ².
    """
    return soft_target_kl(standardise(student), standardise(teacher.detach()), temperature)


class StandardisedLogits(TemperedTerm):
    """`standardised_logits`: `soft_target_kl` between z-scores of each row's logits, in nats per row.

    Args:
        temperature: T, a number or a `Schedule`.
        rows: see `ChosenRowsTerm`.
    """

    name, outputs, least_classes = "standardised_logits", ("distribution",), 3
    unit = "nats × T²"
    formula = "KL(teacher ‖ student) of the softened z-scores of each row's logits, times T²"
    paper = "2403.01427"
    softened_loss = staticmethod(standardised_logits)
