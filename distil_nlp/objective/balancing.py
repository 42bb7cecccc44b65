"""Terms that are weighed against each other while training goes on, besides the weights that a recipe gives them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

SMALLEST_FRACTION = 1e-3
"""Of a term's first mean: below that, it gains no more share."""


class LossBalancer(nn.Module):
    """A share for each term, by which its weight is multiplied; all are 1 until something is known.

    `uncertainty`: 1 / (2 · mean of the term). Weighing losses by learned variances (Kendall et al. 2018,
    arXiv:1705.07115) minimises Σ weight · (L / σ² + log σ² / 2) over σ too; for a given L that is least at σ² = 2 L,
    which needs no learning (as in Kirchdorfer et al. 2024, arXiv:2408.07985). All terms then pull by their relative
    change.

    `gradient_norm`: mean length of the terms' gradients at the student's last hidden state / length of the term's,
    without weights, looked at every so many steps: weights are then the ratios in which terms pull there (after
    GradNorm, Chen et al. 2018, arXiv:1711.02257, without its training rates). A term that does not reach that state
    keeps the share 1.

    Shares follow running means, which checkpoints keep.

    Args:
        kind: which of them.
        every: steps between two looks at gradients.
        decay: of the running means, per step or look.
    """

    def __init__(self, kind: Literal["uncertainty", "gradient_norm"], every: int = 100, decay: float = 0.9):
        super().__init__()
        self.kind, self.every, self.decay = kind, every, decay

    def start(self, count: int) -> None:
        """For so many terms; nothing is known yet."""
        for name in ("mean", "first", "known"):
            self.register_buffer(name, torch.zeros(count))

    def shares(self) -> Tensor:
        """(terms,), without a look at values, which would synchronise a GPU."""
        known = self.known > 0
        mean = torch.where(known, torch.maximum(self.mean, SMALLEST_FRACTION * self.first), 1.0)
        if self.kind == "uncertainty":
            return torch.where(known, 0.5 / mean, 1.0)
        average = (mean * self.known).sum() / self.known.sum().clamp_min(1)
        return torch.where(known, average / mean, 1.0)

    def learn(self, values: Tensor, seen: Tensor) -> None:
        """The unweighted terms of a step, or the lengths of their gradients, of those that were seen; (terms,) each."""
        seen = seen & (values > 0)
        is_new = seen & (self.known == 0)
        followed = self.decay * self.mean + (1 - self.decay) * values
        self.mean.copy_(torch.where(is_new, values, torch.where(seen, followed, self.mean)))
        self.first.copy_(torch.where(is_new, values, self.first))
        self.known.copy_(torch.maximum(self.known, seen.to(self.known.dtype)))
