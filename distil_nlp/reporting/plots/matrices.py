"""Matrices of coloured cells: similarity of layers, and confusion of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from distil_nlp.reporting.formatting import count, plural
from distil_nlp.reporting.plots.style import HEAT, INK, ON_HEAT, WIDTH, Picture, bare, canvas, picture, shorten
from distil_nlp.reporting.scores import teacher_word
from distil_nlp.results import RunResults

_Cells = Sequence[Sequence[Any]]
MOST_CLASSES = 20
"""Largest number of classes for which a confusion matrix is drawn."""
_MOST_UNSLANTED = 40
"""Letters of all names below a matrix up to which they are written straight."""


def cka_figure(run: RunResults) -> Picture | None:
    """Return the CKA of student layers (upwards) and teacher layers (to the right)."""
    cka = run.get("fidelity.cka") or {}
    if not all(cka.get(key) for key in ("values", "teacher_layers", "student_layers")):
        return None
    values, columns, rows = cka["values"], _layer_names(cka["teacher_layers"]), _layer_names(cka["student_layers"])
    figure = canvas("Similarity of hidden states (CKA)", 92 + 26 * len(rows), max(WIDTH, 70 + 27 * len(columns)))
    axes = figure.subplots()
    _matrix(axes, values, values, lambda value: "1.0" if value >= 0.995 else f"{value:.2f}"[1:])
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlabel(f"{teacher_word(run)} layer")
    axes.set_ylabel("student layer")
    best = [columns[max(range(len(line)), key=lambda i: line[i] or 0)] for line in values]
    pairs = zip(rows, best, strict=True)
    word = teacher_word(run)
    most_similar = "; ".join(f"student {student} most similar to {word} {layer}" for student, layer in pairs)
    note = "0: unrelated, 1: equal up to rotation and scale."
    return picture(figure, "cka", f"Linear CKA of hidden states: {most_similar}.", note)


def _layer_names(names: Sequence[Any]) -> list[str]:
    """Return the layers' names as they fit below a column."""
    return ["emb." if name == "embeddings" else str(name) for name in names]


def confusion_figures(run: RunResults) -> list[Picture]:
    """Return the confusion matrix of the teacher and that of the student, of one size; [] for many classes."""
    matrices = {role: run.get(f"fidelity.confusion.{role}") for role in ("teacher", "student")}
    matrices = {role: counts for role, counts in matrices.items() if counts}
    size = len(next(iter(matrices.values()), ()))
    if not 2 <= size <= MOST_CLASSES:
        return []
    words = {"teacher": teacher_word(run), "student": "student"}
    return [_confusion(words[role], counts, run.get("labels") or []) for role, counts in matrices.items()]


def _confusion(role: str, counts: _Cells, labels: Sequence[str]) -> Picture:
    """Draw a model's matrix, with the first class on top and on the left."""
    size = len(counts)
    figure = canvas(f"Predictions of the {role} by true class", 128 + 27 * size, max(WIDTH, 120 + 28 * size))
    axes = figure.subplots()
    names = [shorten(str(name), 14) for name in labels] if len(labels) == size else [str(i) for i in range(size)]
    longest = _MOST_UNSLANTED // size
    slant: dict[str, Any] = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > longest else {}
    )
    fractions = [[value / max(sum(line), 1) for value in line] for line in counts]
    _matrix(axes, counts, fractions, count)
    axes.set_xticks(range(size), names, **slant)
    axes.set_yticks(range(size), names)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")
    note = "Counts; the stronger the colour, the larger the fraction of the true class."
    return picture(figure, f"confusion_{role}", f"Confusion matrix: {role} correct on {_correct(counts)}.", note)


def _correct(counts: _Cells) -> str:
    """Return the number of correct predictions: 312 of 408 rows."""
    return f"{count(sum(line[i] for i, line in enumerate(counts)))} of {plural(sum(map(sum, counts)), 'row')}"


def _matrix(axes: Axes, values: _Cells, strengths: _Cells, write: Callable[[Any], str]) -> None:
    """Draw cells with the strength of colour in `strengths` (0 to 1), and their values as text."""
    bare(axes)
    axes.set_xlim(-0.5, len(values[0]) - 0.5)
    for y, (row, row_strengths) in enumerate(zip(values, strengths, strict=True)):
        for x, (value, strength) in enumerate(zip(row, row_strengths, strict=True)):
            if value is None:
                continue
            alpha = 0.06 + 0.94 * min(max(strength, 0), 1)
            axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, facecolor=HEAT, alpha=alpha, linewidth=0))
            colour = ON_HEAT if alpha > 0.8 else INK
            axes.text(x, y, write(value), ha="center", va="center", color=colour, fontsize=9)
