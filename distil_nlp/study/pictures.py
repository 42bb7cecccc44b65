"""Pictures of a study over the keys that it varies, and over what its trainings took."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distil_nlp.reporting.formatting import duration, large
from distil_nlp.reporting.plots.heat_map import HeatAxis, HeatCell, heat_map
from distil_nlp.reporting.plots.style import Picture
from distil_nlp.reporting.plots.sweep import ComputePoint, SweepLine, SweepPoint, compute_plot, sweep_plot
from distil_nlp.study.axes import Axis
from distil_nlp.study.table import row_label, rows_of_arm

_Row = Mapping[str, Any]
_MOST_MAPS = 6
_LEVEL = 0.95
_SPREAD = 1.1
"""Ratio of the most and the least that was spent from which it is drawn."""


def axis_pictures(task: str, rows: Sequence[_Row], axes: Sequence[Axis]) -> list[Picture]:
    """Return heat maps over two keys, for each method and value of further keys; or the curves over one."""
    if len(axes) == 1:
        return [_curves(task, rows, axes[0])]
    return _heat_maps(task, rows, axes)[:_MOST_MAPS] if axes else []


def _heat_maps(task: str, rows: Sequence[_Row], axes: Sequence[Axis]) -> list[Picture]:
    vertical, horizontal, *others = axes
    methods = dict.fromkeys(row["method"] for row in rows if row["gain"])
    pictures = []
    for method, rest in itertools.product(methods, itertools.product(*(axis.values for axis in others))):
        fixed = {axis.name: value for axis, value in zip(others, rest, strict=True)}
        chosen = [row for row in rows if row["method"] == method and row["point"].items() >= fixed.items()]
        cells = {
            (y, x): HeatCell(*(row["gain"][key] for key in ("mean", "low", "high")))
            for row in chosen
            for y, first in enumerate(vertical.values)
            for x, second in enumerate(horizontal.values)
            if row["gain"] and row["point"].get(vertical.name) == first and row["point"].get(horizontal.name) == second
        }
        if cells:
            at = "".join(f", {axis.title} {value}" for axis, value in zip(others, rest, strict=True))
            title = f"{method}{at}: gain over {rows[0]['compared_with']}"
            sides = HeatAxis(vertical.title, vertical.values), HeatAxis(horizontal.title, horizontal.values)
            name = f"grid-{task}-{method}" + "".join(f"-{value}" for value in rest)
            pictures.append(heat_map(name, title, *sides, cells, rows[0]["metric"], _LEVEL))
    return pictures


def _curves(task: str, rows: Sequence[_Row], axis: Axis) -> Picture:
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        at = {_shown(row["point"].get(axis.name)): row for row in rows_of_arm(rows, method)}
        constant = at.get(None)  # what the key has no effect on
        found = [(value, at.get(value, constant)) for value in map(_shown, axis.values)]
        lines.append(SweepLine(method, [_point(value, row) for value, row in found if row is not None]))
    teachers = {_shown(row["point"].get(axis.name)): row["teacher"] for row in rows if row["teacher"] is not None}
    known = [SweepPoint(value, *[teachers[value]] * 3) for value in map(_shown, axis.values) if value in teachers]
    lines += [SweepLine("teacher", known)] if known else []
    metric = rows[0]["metric"]
    return sweep_plot(
        f"sweep-{task}", f"{metric} over {axis.title}", lines, axis.title, metric, axis.is_logarithmic, _LEVEL
    )


def _shown(value: Any) -> Any:
    """Return a value that can be looked up and named: a list or a section as its text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _point(value: Any, row: _Row) -> SweepPoint:
    interval = row.get("interval") or row
    return SweepPoint(value, row["median"], interval["low"], interval["high"])


def compute_pictures(task: str, rows: Sequence[_Row]) -> list[Picture]:
    """Return scores over operations and over seconds of the training, where these differ."""
    metric = rows[0]["metric"]
    titles: dict[str, tuple[str, str, Callable[[float], str]]] = {
        "flops": ("FLOPs of a training, forward and backward, of all models", f"{metric} over operations", large),
        "seconds": ("time of a training", f"{metric} over time", duration),
    }
    pictures = []
    for key, (axis, title, write) in titles.items():
        known = [row for row in rows if row.get(key)]
        spent = [row[key] for row in known]
        if len(known) > 1 and max(spent) > _SPREAD * min(spent):
            runs = [ComputePoint(row_label(row), row[key], *_point(None, row)[1:]) for row in known]
            pictures.append(compute_plot(f"{key}-{task}", title, runs, axis, metric, write))
    return pictures
