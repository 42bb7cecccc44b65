"""Sums of terms that stay on the device until somebody reads them: no synchronisation per micro-step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Meter:
    """Adds up terms, and remembers which of them was ever not finite.

    Args:
        size: how many terms.
        counted: sums come with row counts, and `read` divides by them; else by the steps since the last read that had a
            row of the term.
    """

    def __init__(self, size: int, device: torch.device, counted: bool = False):
        self.sums = torch.zeros(size, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        self.counts = torch.zeros_like(self.sums) if counted else None
        self.steps = torch.zeros_like(self.sums)
        self.finite = torch.ones(size, device=device, dtype=torch.bool)
        self.last_step = 0

    def start(self, step: int) -> None:
        """Training begins, or goes on, at this step."""
        self.sums.zero_()
        self.steps.zero_()
        self.last_step = step

    def begin_step(self, counts: Tensor) -> None:
        """A step of so many rows of each term, over all processes."""
        self.steps += counts > 0

    def add(self, sums: Tensor, counts: Tensor | None = None) -> None:
        self.finite &= torch.isfinite(sums)
        self.sums += sums
        if self.counts is not None:
            self.counts += counts

    def read(self, accelerator: Any, step: int | None = None) -> list[float]:
        """The means over all processes, NaN where there was no row: by rows if counted, else by steps since the last
        read. Starts anew."""
        sums = accelerator.reduce(self.sums.clone(), "sum")
        if self.counts is not None:
            return (sums / accelerator.reduce(self.counts.clone(), "sum")).tolist()
        means = (sums / self.steps).tolist()
        self.start(step)
        return means

    def not_finite(self, accelerator: Any, names: list[str]) -> list[str]:
        bad = accelerator.reduce((~self.finite).float(), "sum").tolist()
        return [name for name, flag in zip(names, bad, strict=True) if flag]
