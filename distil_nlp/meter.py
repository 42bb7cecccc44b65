"""Sums of terms that stay on the device until somebody reads them: no synchronisation per micro-step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Meter:
    """Adds up terms, and remembers which of them was ever not finite.

    Args:
        size: how many terms.
        counted: sums come with row counts, and `read` divides by them; else by the steps since the last read.
    """

    def __init__(self, size: int, device: torch.device, counted: bool = False):
        self.sums = torch.zeros(size, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        self.counts = torch.zeros_like(self.sums) if counted else None
        self.finite = torch.ones(size, device=device, dtype=torch.bool)
        self.last_step = 0

    def start(self, step: int) -> None:
        """Training begins, or goes on, at this step."""
        self.sums.zero_()
        self.last_step = step

    def add(self, sums: Tensor, counts: Tensor | None = None) -> None:
        self.finite &= torch.isfinite(sums)
        self.sums += sums
        if self.counts is not None:
            self.counts += counts

    def read(self, accelerator: Any, step: int | None = None) -> list[float]:
        """The means over all processes: by rows if counted, else by steps since the last read. Starts anew."""
        sums = accelerator.reduce(self.sums.clone(), "sum")
        if self.counts is not None:
            return (sums / accelerator.reduce(self.counts.clone(), "sum")).tolist()  # NaN where there was no row
        means = (sums / max(step - self.last_step, 1)).tolist()
        self.sums.zero_()
        self.last_step = step
        return means

    def not_finite(self, accelerator: Any, names: list[str]) -> list[str]:
        bad = accelerator.reduce((~self.finite).float(), "sum").tolist()
        return [name for name, flag in zip(names, bad, strict=True) if flag]
