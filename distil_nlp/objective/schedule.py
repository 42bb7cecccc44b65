"""Schedules of a number over training: constant, or linear or cosine from start to end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Curve = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """A number as a function of training progress.

    Attributes:
        start: the value at the first step.
        end: the value at the last step; ignored for `constant`.
        shape: `linear`, or `cosine` (half a period: slow, fast, slow).
    """

    start: float
    end: float | None = None
    shape: Curve = "constant"

    def __post_init__(self) -> None:
        if self.shape != "constant" and self.end is None:
            raise ValueError(f"expected an end value for the {self.shape} schedule / got none")

    def __call__(self, progress: float) -> float:
        """Return the value at `progress`, from 0 (first step) to 1 (last step); clipped outside."""
        if self.shape == "constant" or self.end is None:
            return self.start
        done = min(max(progress, 0.0), 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done

    def times(self, factor: float) -> Schedule:
        """Return the schedule of `factor` times this number."""
        return Schedule(self.start * factor, None if self.end is None else self.end * factor, self.shape)

    @property
    def always_zero(self) -> bool:
        return self.start == 0 and (self.shape == "constant" or self.end == 0)

    @property
    def changes(self) -> bool:
        return self.shape != "constant" and self.end != self.start
