"""The plot of a search: the value of each trial over each key that was looked through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from distil_nlp.reporting.plots.style import MUTED, STUDENT_COLOUR, TEACHER_COLOUR, Picture, canvas, picture

_PANEL, _HEIGHT, _MOST = 260, 220, 6


@dataclass(frozen=True)
class TrialMark:
    """A trial on the plot.

    Attributes:
        values: of the keys, in the order of the panels; None where it has none.
        score: its value.
        is_whole: whether it was trained to its end.
    """

    values: Sequence[Any]
    score: float
    is_whole: bool


@dataclass(frozen=True)
class TrialAxis:
    """A key that was looked through.

    Attributes:
        title: on its axis.
        is_logarithmic: whether factors count.
        places: all values of a list, in its order; None for a range.
    """

    title: str
    is_logarithmic: bool
    places: Sequence[str] | None


def trials_plot(
    name: str, title: str, axes: Sequence[TrialAxis], trials: Sequence[TrialMark], best: TrialMark, metric: str
) -> Picture:
    """Return a panel for each key, the first six, with a mark for each trial, and the best one marked."""
    shown = list(axes)[:_MOST]
    columns = 2 if len(shown) in (2, 4) else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = canvas(title, _HEIGHT * rows + 30, max(_PANEL * columns, 400))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    groups = {
        "ended early": ([one for one in trials if not one.is_whole], MUTED, "x"),
        "trial": ([one for one in trials if one.is_whole and one is not best], STUDENT_COLOUR, "o"),
        "best": ([best], TEACHER_COLOUR, "*"),
    }
    for number, panel in enumerate(panels):
        if number >= len(shown):
            panel.set_visible(False)
            continue
        axis = shown[number]
        for label, (marks, colour, marker) in groups.items():
            points = [(_place(one.values[number], axis), one.score) for one in marks if one.values[number] is not None]
            if points:
                size = 11 if marker == "*" else 5
                panel.plot(
                    *zip(*points, strict=True), marker, color=colour, markersize=size, linestyle="none",
                    label=label if number == 0 else None,
                )  # fmt: skip
        if axis.places is not None:
            panel.set_xticks(range(len(axis.places)), [text[:12] for text in axis.places])
            panel.set_xlim(-0.5, len(axis.places) - 0.5)
        elif axis.is_logarithmic:
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel(axis.title)
        if number % columns == 0:
            panel.set_ylabel(metric)
    figure.legend(loc="outside lower left", ncols=3, borderaxespad=0.2)
    at = ", ".join(f"{axis.title} {value}" for axis, value in zip(axes, best.values, strict=True) if value is not None)
    over = ", ".join(axis.title for axis in shown)
    said = f"{metric} of {len(trials)} trials over {over}; best {best.score:.3f} at {at}."
    return picture(figure, name, said, "On rows held back from training; the rows that are scored are others.")


def _place(value: Any, axis: TrialAxis) -> float:
    return value if axis.places is None else list(axis.places).index(str(value))
