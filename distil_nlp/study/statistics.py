"""Statistics of many comparisons: Holm's correction, and the interquartile mean over tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import trim_mean

_QUARTER = 0.25


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all comparisons together (Holm 1979): at most 5 % are 5 % wrong in any one.

    The smallest of m is multiplied by m, the next by m − 1, and so on; none becomes smaller than one before it.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values, dtype=float)[order]), 1.0)
    back = np.empty(len(order))
    back[order] = adjusted
    return back.tolist()


def interquartile_mean(
    by_task: Sequence[Sequence[float]], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return (mean of the middle half of all runs' scores, lower end, upper end), over tasks and seeds.

    The interval is a stratified bootstrap: seeds are drawn anew within each task (Agarwal et al. 2021,
    arXiv:2108.13264). As n seeds that are drawn from n spread less than n others would, their deviations from the
    task's mean are made √(n ÷ (n − 1)) as large. With one seed a task it has no width.

    Args:
        by_task: task → the scores of its seeds, on one scale, such as retention.
        resamples: number of draws.
        level: coverage of the interval.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(_spread(np.asarray(scores, dtype=float)), (resamples, len(scores))) for scores in by_task]
    means = trim_mean(np.concatenate(drawn, axis=1), _QUARTER, axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(trim_mean(np.concatenate([*map(np.asarray, by_task)]), _QUARTER)), float(low), float(high)


def _spread(scores: np.ndarray) -> np.ndarray:
    """Return scores whose variance, divided by their number, is the unbiased one."""
    mean, count = scores.mean(), len(scores)
    return mean + (scores - mean) * np.sqrt(count / max(count - 1, 1))


def equivalent_rows(score: float, rows: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return the number of rows with which a learning curve reaches a score, between its points by the logarithm.

    None where it never does. The curve is taken to rise: a point below an earlier one counts as that one.

    Args:
        score: to reach.
        rows: of the curve's points, ascending.
        scores: likewise.
    """
    rising = np.maximum.accumulate(np.asarray(scores, dtype=float))
    if score > rising[-1]:
        return None
    last = int(np.argmax(rising >= score))
    if last == 0:
        return float(rows[0])
    share = (score - rising[last - 1]) / (rising[last] - rising[last - 1])
    return float(np.exp(np.interp(share, [0, 1], np.log([rows[last - 1], rows[last]]))))
