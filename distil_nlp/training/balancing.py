"""The callback that updates loss balancing after each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class BalancingCallback(TrainerCallback):
    """Lets the shares follow the trainer's terms at the end of a step, before it may be saved.

    Attributes:
        shares: those that the step which ended was taken with, (terms,).
    """

    def __init__(self, trainer: Any, count: int, device: torch.device):
        self.trainer, self.shares = trainer, torch.ones(count, device=device)
        self._values = torch.zeros(count, device=device)

    def start(self) -> None:
        """Training begins, or begins again."""
        self._values.zero_()

    def add(self, values: Tensor, counts: Tensor) -> None:
        """What a micro-batch adds to the terms of the step, which have so many rows in all; (terms,) each."""
        self._values += values
        self._counts = counts

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer, balance = self.trainer, self.trainer.objective.balance
        self.shares = balance.shares()
        if balance.kind == "uncertainty":
            balance.learn(trainer.accelerator.reduce(self._values, "sum"), self._counts > 0)
        elif (norms := trainer.probe.pop_norms()) is not None:
            weights = norms.new_tensor(trainer.objective.weights(trainer.progress_at(state.global_step - 1)))
            norms = trainer.accelerator.reduce(norms, "mean") / (self.shares * weights.clamp_min(1e-30))
            balance.learn(norms, weights > 0)
        self._values.zero_()
