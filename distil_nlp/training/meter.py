"""Sums of terms that stay on the device until they are read, without synchronisation in each micro-step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Meter:
    """Sums of terms, and a flag for each term that was ever not finite.

    Args:
        size: number of terms.
        device: where sums stay.
        counted: whether sums come with row counts, by which `read` divides. Otherwise it divides by the steps since the
            last read that had a row of the term.
    """

    def __init__(self, size: int, device: torch.device, counted: bool = False):
        self.sums = torch.zeros(size, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        self.counts = torch.zeros_like(self.sums) if counted else None
        self.steps = torch.zeros_like(self.sums)
        self.finite = torch.ones(size, device=device, dtype=torch.bool)
        self.last_step = 0

    def start(self, step: int) -> None:
        """Reset the sums where training starts, or continues, at a step."""
        self.sums.zero_()
        self.steps.zero_()
        self.last_step = step

    def begin_step(self, counts: Tensor) -> None:
        """Count a step for every term that has rows in it; `counts` is over all processes, (terms,)."""
        self.steps += counts > 0

    def add(self, sums: Tensor, counts: Tensor | None = None) -> None:
        """Add sums of a micro-batch, (terms,)."""
        self.finite &= torch.isfinite(sums)
        self.sums += sums
        if self.counts is not None:
            assert counts is not None
            self.counts += counts

    def read(self, accelerator: Any, step: int = 0) -> list[float]:
        """Return the means over all processes, NaN where there was no row.

        They are means over rows if counted, else over steps since the last read; then the sums are reset.
        """
        sums = accelerator.reduce(self.sums.clone(), "sum")
        if self.counts is not None:
            return (sums / accelerator.reduce(self.counts.clone(), "sum")).tolist()
        means = (sums / self.steps).tolist()
        self.start(step)
        return means

    def not_finite(self, accelerator: Any, names: list[str]) -> list[str]:
        """Return the names of terms that were NaN or infinite on any process."""
        bad = accelerator.reduce((~self.finite).float(), "sum").tolist()
        return [name for name, flag in zip(names, bad, strict=True) if flag]
