"""`CostCurve`: what a batch costs, as a function of its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True)
class CostCurve:
    """Cost of a batch of some width: fixed + linear · width + quadratic · width², none of them below 0.

    Linear layers cost as many operations as there are tokens, attention as many as their square, and calls of operators
    the same for any width.
    """

    fixed: float = 0.0
    linear: float = 0.0
    quadratic: float = 0.0

    @classmethod
    def fit(cls, widths: Sequence[float], costs: Sequence[float]) -> CostCurve:
        """Return the curve of least relative squares through measured batches, at least one."""
        x, y = np.asarray(widths, dtype=float), np.asarray(costs, dtype=float)
        if np.ptp(x) == 0 or not y.any():
            return cls(linear=float(y.mean() / x.mean()))
        scale, weights = x.max(), 1 / np.maximum(y, y.max() * 1e-9)
        terms = np.stack([np.ones_like(x), x / scale, (x / scale) ** 2], 1)
        fixed, linear, quadratic = nnls(terms * weights[:, None], y * weights)[0]
        return cls(fixed, linear / scale, quadratic / scale**2)

    def total(self, widths: np.ndarray) -> float:
        """Return the cost of batches of these widths together."""
        widths = widths.astype(float)
        return float(self.fixed * len(widths) + self.linear * widths.sum() + self.quadratic * (widths**2).sum())
