"""The callback that updates loss balancing after each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class BalancingCallback(TrainerCallback):
    """A callback that updates the shares of the terms at the end of a step, before it may be saved.

    Attributes:
        shares: those of the step that just ended, (terms,).
    """

    def __init__(self, trainer: Any, count: int, device: torch.device):
        self.trainer, self.shares = trainer, torch.ones(count, device=device)
        self._values = torch.zeros(count, device=device)

    def start(self) -> None:
        """Discard sums where training starts, or starts again."""
        self._values.zero_()

    def add(self, values: Tensor, counts: Tensor) -> None:
        """Add the terms of a micro-batch.

        Args:
            values: means of the terms, (terms,).
            counts: rows of the terms in the whole step, (terms,).
        """
        self._values += values
        self._counts = counts

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the shares by the values or gradient norms of the step, over all processes."""
        trainer, balance = self.trainer, self.trainer.objective.balance
        self.shares = balance.shares()
        if balance.kind == "uncertainty":
            balance.learn(trainer.accelerator.reduce(self._values, "sum"), self._counts > 0)
        elif (norms := trainer.probe.pop_norms()) is not None:
            weights = norms.new_tensor(trainer.objective.weights(trainer.progress_at(state.global_step - 1)))
            norms = trainer.accelerator.reduce(norms, "mean") / (self.shares * weights.clamp_min(1e-30))
            balance.learn(norms, weights > 0)
        self._values.zero_()
