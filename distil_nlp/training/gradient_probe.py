"""How the terms pull: the gradient of each at the student's last hidden state, every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from distil_nlp.signals.recorder import Recorder


class GradientProbe:
    """Lengths of the terms' weighted gradients with respect to the student's last hidden state, and the cosines between
    them: which term leads, and which pull against each other. Nothing of the training changes.

    That state is what most terms share, so the gradient there stands for that of all parameters, at the cost of a
    forward for each term; what terms on layers below, on weights or on input gradients pull at besides is not seen. Of
    the first micro-batch of a step, on each process its own; the main one's are logged. A term that does not look at
    the last layer's output has length 0 there, and no cosine.

    Args:
        every: steps between two looks.
    """

    def __init__(self, every: int):
        self.every = every
        self._step = self._taken = -1
        self._names: Sequence[str] = ()
        self.norms: Tensor | None = None
        self._cosines: Tensor | None = None

    def start(self) -> None:
        """Training begins, or begins again."""
        self._step = self._taken = -1

    def is_due(self, step: int) -> bool:
        """Whether to look; once a step, whatever its micro-batches."""
        return step % self.every == 0 and step != self._step

    def measure(
        self, step: int, names: Sequence[str], factors: Tensor, recorder: Recorder, forward: Callable[[Tensor], Tensor]
    ) -> None:
        """`forward` gives the loss for factors; those of one term at a time are asked for."""
        gradients = []
        devices = [factors.device] if factors.device.type == "cuda" else []
        for chosen in torch.eye(len(names), device=factors.device).unbind():
            with torch.random.fork_rng(devices), recorder.keeping_last():
                loss = forward(factors * chosen)
                found = torch.autograd.grad(loss, recorder.last, allow_unused=True)[0] if loss.requires_grad else None
                gradients.append(torch.zeros_like(recorder.last) if found is None else found.detach())
        flat = torch.stack([one.float().flatten() for one in gradients])
        self.norms = flat.norm(dim=1)
        directions = flat / self.norms.clamp_min(1e-30)[:, None]
        self._cosines = directions @ directions.T
        self._step, self._names = step, names

    def read(self) -> dict[str, float]:
        """What was found since it was last read."""
        if self._cosines is None:
            return {}
        names, norms, cosines = self._names, self.norms.tolist(), self._cosines.tolist()
        self._cosines = None
        found = {f"gradient_norm/{name}": length for name, length in zip(names, norms, strict=True)}
        for i, j in combinations(range(len(names)), 2):
            if norms[i] > 0 and norms[j] > 0:
                found[f"gradient_cosine/{names[i]}/{names[j]}"] = cosines[i][j]
        return found

    def pop_norms(self) -> Tensor | None:
        """(terms,), if they were not taken since the last look."""
        taken, self._taken = self.norms if self._taken != self._step else None, self._step
        return taken
