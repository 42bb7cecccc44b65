"""Matrices of coloured cells: likeness of layers, and predictions by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from distil_nlp.reporting.formatting import count, plural
from distil_nlp.reporting.plots.style import HEAT, INK, ON_HEAT, WIDTH, Picture, bare, canvas, picture, shorten
from distil_nlp.results import RunResults

_Cells = Sequence[Sequence[Any]]
MOST_CLASSES = 20
"""A confusion matrix of more would not be read."""
_MOST_BESIDE = 3


def matrix_figures(run: RunResults) -> list[Picture | None]:
    """Both, if there are figures for them."""
    return [confusion_figure(run), cka_figure(run)]


def cka_figure(run: RunResults) -> Picture | None:
    """Student layers upwards, teacher layers to the right."""
    found = run.get("fidelity.cka") or {}
    if not all(found.get(key) for key in ("values", "teacher_layers", "student_layers")):
        return None
    values, columns, rows = found["values"], _layers(found["teacher_layers"]), _layers(found["student_layers"])
    figure = canvas("Likeness of hidden states (CKA)", 92 + 26 * len(rows), max(WIDTH, 70 + 27 * len(columns)))
    axes = figure.subplots()
    _matrix(axes, values, values, lambda value: "1.0" if value >= 0.995 else f"{value:.2f}"[1:])
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlabel("teacher layer")
    axes.set_ylabel("student layer")
    best = [columns[max(range(len(line)), key=lambda i: line[i] or 0)] for line in values]
    said = "; ".join(f"student {ours} most like teacher {theirs}" for ours, theirs in zip(rows, best, strict=True))
    note = "0: unlike, 1: alike up to rotation and scale."
    return picture(figure, "cka", f"Linear CKA of hidden states: {said}.", note)


def _layers(names: Sequence[Any]) -> list[str]:
    return ["emb." if name == "embeddings" else str(name) for name in names]


def confusion_figure(run: RunResults) -> Picture | None:
    """Counts of teacher and student, side by side, or one above the other where classes are many."""
    found = {who: run.get(f"fidelity.confusion.{who}") for who in ("teacher", "student")}
    found = {who: counts for who, counts in found.items() if counts}
    size = len(next(iter(found.values()), ()))
    if not 2 <= size <= MOST_CLASSES:
        return None
    beside = size <= _MOST_BESIDE
    height = 150 + 32 * size if beside else 60 + (110 + 27 * size) * len(found)
    figure = canvas("Predictions by true class", height, WIDTH if beside else max(WIDTH, 120 + 28 * size))
    grid = figure.subplots(*(1, len(found)) if beside else (len(found), 1), squeeze=False, sharey=beside).flat
    for axes, (who, counts) in zip(grid, found.items(), strict=True):
        _confusion(axes, who, counts, run.get("labels") or [])
    grid[0].set_ylabel("true class")
    said = "; ".join(f"{who} right on {_right(counts)}" for who, counts in found.items())
    note = "Counts; the stronger the colour, the larger the share of its true class."
    return picture(figure, "confusion", f"Confusion matrices: {said}.", note)


def _confusion(axes: Axes, who: str, counts: _Cells, labels: Sequence[str]) -> None:
    """One model's matrix, the first class on top and on the left."""
    size = len(counts)
    names = [shorten(str(name), 14) for name in labels] if len(labels) == size else [str(i) for i in range(size)]
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    shares = [[value / max(sum(line), 1) for value in line] for line in counts]
    _matrix(axes, counts, shares, count)
    axes.set_title(who)
    axes.set_xticks(range(size), names, **slant)
    axes.set_yticks(range(size), names)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xlabel("predicted")


def _right(counts: _Cells) -> str:
    """312 of 408 rows."""
    return f"{count(sum(line[i] for i, line in enumerate(counts)))} of {plural(sum(map(sum, counts)), 'row')}"


def _matrix(axes: Axes, values: _Cells, strengths: _Cells, form: Callable[[Any], str]) -> None:
    """Cells whose colour is as strong as `strengths` (0 to 1) say, their values printed."""
    bare(axes)
    axes.set_xlim(-0.5, len(values[0]) - 0.5)
    for y, (line, strong) in enumerate(zip(values, strengths, strict=True)):
        for x, (value, strength) in enumerate(zip(line, strong, strict=True)):
            if value is None:
                continue
            alpha = 0.06 + 0.94 * min(max(strength, 0), 1)
            axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, facecolor=HEAT, alpha=alpha, linewidth=0))
            colour = ON_HEAT if alpha > 0.8 else INK
            axes.text(x, y, form(value), ha="center", va="center", color=colour, fontsize=9)
