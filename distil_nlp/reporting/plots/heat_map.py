"""A heat map of gains over two keys of a grid, hatched where a gain is within the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from distil_nlp.reporting.formatting import points
from distil_nlp.reporting.plots.style import HEAT, INK, MUTED, ON_HEAT, WIDTH, Picture, bare, canvas, picture, shorten

_LOSS = "#b2182b"
"""The colour of a negative gain, equal on light and dark as that of a positive one."""
_STRONG = 0.55


class HeatCell(NamedTuple):
    """A gain as a fraction with the ends of its interval; 0 without a width for what all are compared with."""

    mean: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval covers 0."""
        return self.low <= 0 <= self.high


class HeatAxis(NamedTuple):
    """An axis: its title and its values in order."""

    title: str
    values: Sequence[Any]


def heat_map(
    name: str,
    title: str,
    rows: HeatAxis,
    columns: HeatAxis,
    cells: Mapping[tuple[int, int], HeatCell],
    metric: str,
    level: float,
) -> Picture:
    """Return cells coloured by their gains, with the gain in points as text.

    Args:
        name: the file's name.
        title: the plot's title.
        rows: from bottom to top.
        columns: from left to right.
        cells: (row, column) → gain; what is missing stays empty.
        metric: the metric of the gains.
        level: coverage of the intervals.
    """
    figure = canvas(title, 110 + 34 * len(rows.values), max(WIDTH, 110 + 52 * len(columns.values)))
    axes = figure.subplots()
    bare(axes)
    largest = max((abs(cell.mean) for cell in cells.values()), default=0) or 1
    for (y, x), cell in cells.items():
        _draw(axes, x, y, cell, abs(cell.mean) / largest)
    axes.set_xlim(-0.5, len(columns.values) - 0.5)
    axes.set_ylim(-0.5, len(rows.values) - 0.5)
    axes.set_xticks(range(len(columns.values)), [shorten(str(value), 12) for value in columns.values])
    axes.set_yticks(range(len(rows.values)), [shorten(str(value), 16) for value in rows.values])
    axes.set_xlabel(columns.title)
    axes.set_ylabel(rows.title)
    said = "; ".join(
        f"{rows.title} {rows.values[y]}, {columns.title} {columns.values[x]}: {points(cell.mean, '+')}"
        + " (within noise)" * cell.is_noise
        for (y, x), cell in sorted(cells.items())
    )
    note = f"Points of {metric}, mean over seeds. Hatched: the {level:.0%} interval over rows and seeds covers 0."
    return picture(figure, name, f"{title}, in points of {metric}: {said}.", note)


def _draw(axes: Axes, x: int, y: int, cell: HeatCell, strength: float) -> None:
    """Draw one cell."""
    colour, place = (HEAT if cell.mean >= 0 else _LOSS), (x - 0.48, y - 0.46)
    axes.add_patch(Rectangle(place, 0.96, 0.92, color=colour, alpha=0.08 + 0.82 * strength, linewidth=0))
    if cell.is_noise:
        axes.add_patch(
            Rectangle(place, 0.96, 0.92, fill=False, hatch="///", edgecolor=MUTED, linewidth=0, gid=f"noise-{y}-{x}")
        )
    is_strong = strength > _STRONG and not cell.is_noise
    box = None if not cell.is_noise else {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    axes.annotate(points(cell.mean, "+"), (x, y), ha="center", va="center", fontsize=10,
                  color=ON_HEAT if is_strong else "#1f2328" if box else INK, bbox=box)  # fmt: skip
