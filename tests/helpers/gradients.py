"""Recording and comparison of the gradients of a trainer's steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback


class Steps(TrainerCallback):
    """Records the gradient and the batches of every step."""

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


def distance(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of the difference between two gradients, relative to the norm of the expected one."""
    zero = torch.zeros(())
    names = actual.keys() | expected.keys()
    difference = sum((actual.get(n, zero).double() - expected.get(n, zero)).square().sum() for n in names)
    norm = sum(gradient.square().sum() for gradient in expected.values())
    return float((difference / norm.clamp_min(1e-12)).sqrt())
