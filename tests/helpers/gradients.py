"""Gradients of a trainer's steps, kept and compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback


class Steps(TrainerCallback):
    """Keeps the gradient and the batches of every step."""

    def __init__(self):
        self.gradients: list[dict[str, Tensor]] = []
        self.batches: list[list[dict[str, Any]]] = []

    def watch(self, run: Any) -> None:
        draw = run.get_batch_samples

        def drawn(*args: Any) -> Any:
            batches, counts = draw(*args)
            self.batches.append(batches)
            return batches, counts

        run.get_batch_samples = drawn

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        model = getattr(model, "module", model)
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Of the two gradients, relative to the length of the one wanted."""
    zero = torch.zeros(())
    names = found.keys() | wanted.keys()
    apart = sum((found.get(n, zero).double() - wanted.get(n, zero)).square().sum() for n in names)
    length = sum(one.square().sum() for one in wanted.values())
    return float((apart / length.clamp_min(1e-12)).sqrt())
