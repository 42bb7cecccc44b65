"""Gradient conflict of the terms: norms and cosines of their gradients at the student's last hidden state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from distil_nlp.signals.recorder import Recorder


class GradientProbe:
    """Measures norms of the terms' weighted gradients at the student's last hidden state, and cosines between them.

    They show which term dominates, and which terms conflict. Training itself does not change.

    Most terms depend on that state, so the gradient there stands for that of all parameters, at the cost of one forward
    for each term. It leaves out what terms on lower layers, on weights or on input gradients do elsewhere. The first
    micro-batch of a step is measured, on each process its own; the main process logs. A term that does not depend on
    the last layer's output has norm 0, and no cosine.

    Args:
        every: steps between two measurements.
    """

    def __init__(self, every: int):
        self.every = every
        self._step = self._popped_step = -1
        self._names: Sequence[str] = ()
        self.norms: Tensor | None = None
        self._cosines: Tensor | None = None

    def start(self) -> None:
        """Forget the last measured step where training starts, or starts again."""
        self._step = self._popped_step = -1

    def is_due(self, step: int) -> bool:
        """Return whether to measure at this step; True once a step, however many micro-batches it has."""
        return step % self.every == 0 and step != self._step

    def measure(
        self, step: int, names: Sequence[str], factors: Tensor, recorder: Recorder, forward: Callable[[Tensor], Tensor]
    ) -> None:
        """Compute the gradient of each term by itself, with one forward per term.

        Args:
            step: the optimiser step.
            names: of the terms.
            factors: row weights of the terms, (terms,).
            recorder: captures the student's last hidden state.
            forward: (factors) → loss.
        """
        gradients = []
        devices = [factors.device] if factors.device.type == "cuda" else []
        for mask in torch.eye(len(names), device=factors.device).unbind():
            with torch.random.fork_rng(devices), recorder.keeping_last():
                loss = forward(factors * mask)
                state = recorder.last
                assert state is not None  # the forward has kept it
                gradient = torch.autograd.grad(loss, state, allow_unused=True)[0] if loss.requires_grad else None
                gradients.append(torch.zeros_like(state) if gradient is None else gradient.detach())
        flat = torch.stack([gradient.float().flatten() for gradient in gradients])
        self.norms = flat.norm(dim=1)
        directions = flat / self.norms.clamp_min(1e-30)[:, None]
        self._cosines = directions @ directions.T
        self._step, self._names = step, names

    def read(self) -> dict[str, float]:
        """Return norms and cosines by their log keys; {} if they were read before."""
        if self._cosines is None or self.norms is None:
            return {}
        names, norms, cosines = self._names, self.norms.tolist(), self._cosines.tolist()
        self._cosines = None
        entries = {f"gradient_norm/{name}": norm for name, norm in zip(names, norms, strict=True)}
        for i, j in combinations(range(len(names)), 2):
            if norms[i] > 0 and norms[j] > 0:
                entries[f"gradient_cosine/{names[i]}/{names[j]}"] = cosines[i][j]
        return entries

    def pop_norms(self) -> Tensor | None:
        """Return the norms, (terms,), once for each measurement; None until the next one."""
        norms, self._popped_step = self.norms if self._popped_step != self._step else None, self._step
        return norms
