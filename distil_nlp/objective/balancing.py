"""Loss balancing: factors of the terms that adapt during training, besides the weights of the recipe."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

SMALLEST_FRACTION = 1e-3
"""Fraction of a term's first mean below which its share no longer grows."""


class LossBalancer(nn.Module):
    """Computes a share for each term, a factor of its weight; all shares are 1 before the first measurement.

    `uncertainty`: 1 / (2 · mean of the term). Weighing losses by learned variances (Kendall et al. 2018,
    arXiv:1705.07115) minimises Σ weight · (L / σ² + log σ² / 2) over σ too; for a given L the minimum is at σ² = 2 L,
    which needs no learning (as in Kirchdorfer et al. 2024, arXiv:2408.07985). The gradient of each term is then that of
    its relative change.

    `gradient_norm`: proportional to 1 / gradient norm of the term, without its weight and at the student's last hidden
    state, measured at intervals: the weights are then the ratios of the gradient norms there (after GradNorm, Chen et
    al. 2018, arXiv:1711.02257, without its training rates). As in GradNorm the shares add up to the number of terms. A
    term that does not depend on that state keeps the share 1.

    Shares are computed from running means, which are saved in checkpoints.

    Args:
        kind: the method.
        every: steps between two measurements of gradient norms.
        decay: decay of the running means, per step or measurement.
    """

    mean: Tensor
    first: Tensor
    known: Tensor

    def __init__(self, kind: Literal["uncertainty", "gradient_norm"], every: int = 100, decay: float = 0.9):
        super().__init__()
        self.kind, self.every, self.decay = kind, every, decay

    def start(self, count: int) -> None:
        """Create the running means of `count` terms."""
        for name in ("mean", "first", "known"):
            self.register_buffer(name, torch.zeros(count))

    def shares(self) -> Tensor:
        """Return the shares, (terms,), without reading values, which would synchronise a GPU."""
        known = self.known > 0
        mean = torch.where(known, torch.maximum(self.mean, SMALLEST_FRACTION * self.first), 1.0)
        if self.kind == "uncertainty":
            return torch.where(known, 0.5 / mean, 1.0)
        inverse = torch.where(known, 1 / mean, 0.0)
        return torch.where(known, inverse * self.known.sum() / inverse.sum(), 1.0)

    def learn(self, values: Tensor, measured: Tensor) -> None:
        """Update the running means.

        Args:
            values: the unweighted terms of a step, or their gradient norms, (terms,).
            measured: True for the terms that have a value in this step, (terms,).
        """
        measured = measured & (values > 0)
        is_new = measured & (self.known == 0)
        updated = self.decay * self.mean + (1 - self.decay) * values
        self.mean.copy_(torch.where(is_new, values, torch.where(measured, updated, self.mean)))
        self.first.copy_(torch.where(is_new, values, self.first))
        self.known.copy_(torch.maximum(self.known, measured.to(self.known.dtype)))
