"""Terms that are weighed against each other while training goes on, besides the weights that a recipe gives them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

LEAST = 1e-6
"""Below which a term's value, or the length of its gradient, gives it no more share."""


class Balance(nn.Module):
    """A share for each term, by which its weight is multiplied; all are 1 until something is known.

    `uncertainty`: 1 / (2 · mean of the term). Weighing losses by learned variances (Kendall et al. 2018,
    arXiv:1705.07115) minimises Σ weight · (L / σ² + log σ² / 2) over σ too; for a given L that is least at σ² = 2 L,
    which needs no learning (as in Kirchdorfer et al. 2024, arXiv:2408.07985). All terms then pull by their relative
    change.

    `gradient_norm`: mean length of all weighted terms' gradients at the student's last hidden state / length of the
    term's, looked at every so many steps, so that all pull alike there (after GradNorm, Chen et al. 2018,
    arXiv:1711.02257, without its training rates). A term that does not reach that state keeps the share 1.

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
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("known", torch.zeros(()))

    def shares(self) -> Tensor:
        """(terms,), without a look at values, which would synchronise a GPU."""
        if self.kind == "uncertainty":
            found = 0.5 / self.mean.clamp_min(LEAST)
        else:
            reaching = self.mean > LEAST
            average = self.mean.sum() / reaching.sum().clamp_min(1)
            found = torch.where(reaching, average / self.mean.clamp_min(LEAST), 1.0)
        return torch.where(self.known > 0, found, torch.ones_like(found))

    def learn(self, values: Tensor) -> None:
        """The unweighted terms of a step, or the lengths of the weighted ones' gradients with all shares 1."""
        followed = self.decay * self.mean + (1 - self.decay) * values
        self.mean.copy_(torch.where(self.known > 0, followed, values))
        self.known.fill_(1)


class Rebalances(TrainerCallback):
    """Has the trainer's terms balanced at the end of a step, before it may be saved."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.rebalance()
