"""Curves of a score over one key, each point with its interval; and scores over what a training took."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from string import ascii_lowercase
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from distil_nlp.reporting.formatting import decimal, span
from distil_nlp.reporting.plots.style import MUTED, SERIES, WIDTH, Picture, canvas, picture, shorten


class SweepPoint(NamedTuple):
    """A value of the key, the median score there, and the ends of its interval."""

    value: Any
    score: float
    low: float
    high: float


class SweepLine(NamedTuple):
    """A method's curve."""

    label: str
    points: Sequence[SweepPoint]


def sweep_plot(
    name: str, title: str, lines: Sequence[SweepLine], axis: str, metric: str, is_logarithmic: bool, level: float
) -> Picture:
    """Return the curves, on a logarithmic axis where the values are spaced by factors; words are evenly spaced.

    Args:
        name: the file's name.
        title: the plot's title.
        lines: at most as many as there are colours are told apart.
        axis: the name of the key, with its unit.
        metric: of the scores.
        is_logarithmic: whether the axis is.
        level: coverage of the intervals.
    """
    figure = canvas(title, 230 + 14 * len(lines), max(WIDTH, 470))
    axes = figure.subplots()
    values = list(dict.fromkeys(point.value for line in lines for point in line.points))
    are_numbers = all(isinstance(value, int | float) for value in values)
    places = {value: value if are_numbers else place for place, value in enumerate(values)}
    if is_logarithmic and are_numbers:
        axes.set_xscale("log")
    for number, line in enumerate(lines):
        _curve(axes, line, [places[point.value] for point in line.points], SERIES[number % len(SERIES)])
    _name_values(axes, places)
    axes.set_xlabel(f"{axis}{', logarithmic axis' if is_logarithmic and are_numbers else ''}")
    axes.set_ylabel(metric)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    said = "; ".join(
        f"{line.label}: " + ", ".join(f"{point.value} {decimal(point.score)}" for point in line.points)
        for line in lines
    )
    note = f"Dots: medians over seeds; bars: {level:.0%} intervals of the mean score, wider than those of differences."
    return picture(figure, name, f"{metric} over {axis}. {said}.", note)


def _curve(axes: Axes, line: SweepLine, places: Sequence[float], colour: str) -> None:
    scores = [point.score for point in line.points]
    axes.plot(places, scores, color=colour, marker="o", markersize=5, label=shorten(line.label, 30))
    for place, point in zip(places, line.points, strict=True):
        axes.plot([place, place], [point.low, point.high], color=colour, linewidth=1.2, alpha=0.7)


def _name_values(axes: Axes, places: dict[Any, Any]) -> None:
    """Name each value below the axis."""
    axes.xaxis.set_major_locator(FixedLocator([*places.values()]))
    names = {place: shorten(str(value).rpartition("/")[2], 14) for value, place in places.items()}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: names.get(place, f"{place:g}")))
    axes.xaxis.set_minor_locator(NullLocator())
    if len(places) > 6:
        axes.tick_params(axis="x", rotation=30)


class ComputePoint(NamedTuple):
    """A run: what its training took, and its median score with the ends of its interval."""

    label: str
    spent: float
    score: float
    low: float
    high: float


def pareto_front(runs: Sequence[ComputePoint]) -> list[ComputePoint]:
    """Return the runs that no other one beats at the same price or less, the cheapest first."""
    front: list[ComputePoint] = []
    for run in sorted(runs, key=lambda one: (one.spent, -one.score)):
        if not front or run.score > front[-1].score:
            front.append(run)
    return front


def compute_plot(
    name: str, title: str, runs: Sequence[ComputePoint], axis: str, metric: str, write: Callable[[float], str]
) -> Picture:
    """Return scores over what their trainings took, on a logarithmic axis, with the front drawn.

    The runs on the front have their names; where these would overlap they have letters, which the caption explains.

    Args:
        name: the file's name.
        title: the plot's title.
        runs: two or more.
        axis: what was spent, with its unit.
        metric: of the scores.
        write: formats what was spent.
    """
    figure = canvas(title, 250, max(WIDTH, 470))
    axes, front = figure.subplots(), pareto_front(runs)
    axes.set_xscale("log")
    for run in runs:
        colour = SERIES[0] if run in front else MUTED
        axes.plot([run.spent] * 2, [run.low, run.high], color=colour, linewidth=1, alpha=0.6)
        axes.scatter([run.spent], [run.score], s=30, color=colour, linewidths=0, zorder=3)
    last = max(run.spent for run in runs)
    steps = [*((run.spent, run.score) for run in front), (last, front[-1].score)]
    axes.step(*zip(*steps, strict=True), where="post", color=SERIES[0], linewidth=1.2)
    _name_ticks(axes, [run.spent for run in runs], write)
    axes.set_xlabel(f"{axis}, logarithmic axis")
    axes.set_ylabel(metric)
    letters = _name_front(figure, axes, front)
    said = "; ".join(
        f"{one.label} {decimal(one.score)} ({span(one.low, one.high)}) for {write(one.spent)}" for one in front
    )
    named = f" ({'; '.join(f'{letter}: {run.label}' for letter, run in letters.items())})" if letters else ""
    note = f"Line: the front, the best score for that much or less{named}. Bars: 95 % intervals. Grey: behind it."
    return picture(figure, name, f"{metric} over {axis}. On the front: {said}.", note)


def _name_front(figure: Figure, axes: Axes, front: Sequence[ComputePoint]) -> dict[str, ComputePoint]:
    """Write the names of runs at their points; letters where names would overlap, which are returned."""
    names = [_write(axes, run, shorten(run.label, 24), is_first=run is front[0]) for run in front]
    figure.draw_without_rendering()
    boxes, space = [name.get_window_extent() for name in names], axes.get_window_extent()
    is_clear = not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    if is_clear and all(space.x0 <= box.x0 and box.x1 <= space.x1 for box in boxes):
        return {}
    for name in names:
        name.remove()
    letters = dict(zip(ascii_lowercase, front, strict=False))
    for letter, run in letters.items():
        _write(axes, run, letter, is_first=True)
    return letters


def _write(axes: Axes, run: ComputePoint, text: str, is_first: bool) -> Annotation:
    """Write above a point, to its left, where no run lies that is on or behind the front; of the first to its right."""
    side = {"xytext": (5, 5), "ha": "left"} if is_first else {"xytext": (-6, 4), "ha": "right"}
    return axes.annotate(text, (run.spent, run.score), textcoords="offset points", fontsize=9.5, **side)


def _name_ticks(axes: Axes, spent: Sequence[float], write: Callable[[float], str]) -> None:
    """Put four ticks on a logarithmic axis, whatever decades it spans."""
    places = np.geomspace(min(spent), max(spent), 4)
    axes.xaxis.set_major_locator(FixedLocator(places.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: write(place)))
    axes.xaxis.set_minor_locator(NullLocator())
