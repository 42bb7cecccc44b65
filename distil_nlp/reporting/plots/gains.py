"""A plot of gains over a baseline, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distil_nlp.reporting.formatting import points
from distil_nlp.reporting.plots.style import INK, MUTED, STUDENT_COLOUR, Picture, canvas, picture, shorten


class GainRow(NamedTuple):
    """A gain as a fraction, and the ends of its interval."""

    label: str
    mean: float
    low: float
    high: float


def gain_plot(name: str, rows: Sequence[GainRow], baseline: str, metric: str, level: float) -> Picture:
    """Return a line for each gain, strong where its interval excludes 0, on an axis in points.

    Args:
        name: the file's name.
        rows: from top to bottom.
        baseline: what the gains are over.
        metric: the metric of the gains.
        level: coverage of the intervals.
    """
    figure = canvas(f"Gain over {shorten(baseline, 30)}", 82 + 26 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    for y, row in enumerate(rows):
        colour = STUDENT_COLOUR if row.low > 0 or row.high < 0 else MUTED
        axes.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.6, gid=f"interval-{y}")
        axes.scatter([100 * row.mean], [y], s=34, color=colour, linewidths=0, zorder=3)
        axes.annotate(points(row.mean, "+"), (1, y), (4, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="center", color=INK, fontsize=9.5)  # fmt: skip
    axes.set_yticks(range(len(rows)), [shorten(row.label, 30) for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{metric}, points")
    said = "; ".join(f"{row.label} {points(row.mean, '+')} ({points(row.low, '+')} to {points(row.high, '+')})"
                     for row in rows)  # fmt: skip
    note = f"Line: {level:.0%} interval over rows and seeds, of each comparison by itself. Grey: it contains 0."
    return picture(figure, name, f"Gain in {metric} over {baseline}, in points: {said}.", note)
