"""Plots over training steps: terms of the loss, their weights, and their gradient norms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator

from distil_nlp.losses.registry import TERMS
from distil_nlp.reporting.formatting import decimal
from distil_nlp.reporting.plots.style import (
    INK,
    SERIES,
    STUDENT_COLOUR,
    TEACHER_COLOUR,
    Picture,
    canvas,
    picture,
)
from distil_nlp.reporting.scores import headline_name
from distil_nlp.results import RunResults, get_nested

_WIDE_RANGE = 4
"""Ratio of largest to smallest value above which a term gets a log axis."""


def terms_figure(run: RunResults) -> Picture | None:
    """Return a panel for the total loss, for each term, and for the headline metric if training was evaluated."""
    panels = [("loss", "total loss", INK)]
    panels += [(term, f"{term}, {_unit(term, run)}".rstrip(", "), STUDENT_COLOUR) for term in _terms(run)]
    panels += [(f"eval_{run.metric}", f"{headline_name(run)}, held out", TEACHER_COLOUR)]
    drawn = [(curve, title, colour) for key, title, colour in panels if len(curve := logged_curve(run, key)) > 1]
    if not drawn:
        return None
    figure = canvas(
        "Loss terms over training" if len(drawn) > 1 else "Loss over training", 48 + 108 * _rows(len(drawn))
    )
    for axes, panel in zip(_panels(figure, len(drawn)), drawn, strict=True):
        _panel(axes, *panel)
    values = "; ".join(f"{title} from {decimal(curve[0][1])} to {decimal(curve[-1][1])}" for curve, title, _ in drawn)
    note = "Terms before weighting, means since the last log. Axes that are logarithmic say so."
    return picture(figure, "terms", f"Over training steps: {values}.", note)


def _rows(panels: int) -> int:
    """Return the rows of two panels; the first panel of an odd number has a row of its own."""
    return panels // 2 + panels % 2


def _panels(figure: Figure, number: int) -> list[Axes]:
    """Return axes in two columns without an empty cell, and `step` below each column."""
    grid, first = figure.add_gridspec(_rows(number), 2), number % 2
    cells = [grid[0, :]] * first + [grid[i // 2 + first, i % 2] for i in range(number - first)]
    panels = [figure.add_subplot(cell) for cell in cells]
    for axes in panels[-2:] if number > 1 else panels:
        axes.set_xlabel("step")
    return panels


def _panel(axes: Axes, curve: list[tuple[int, float]], title: str, colour: str) -> None:
    """Draw a curve over steps, with few ticks, and say in its title if the axis is logarithmic."""
    steps, values = zip(*curve, strict=True)
    axes.plot(steps, values, color=colour)
    axes.set_title(title, fontsize=9.5)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if min(values) > 0 and max(values) > _WIDE_RANGE * min(values):
        axes.set_title(f"{title} (log axis)", fontsize=9.5)
        _log_axis(axes, values)


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make the y axis logarithmic, with a few labels in plain numbers for any range."""
    axes.set_yscale("log")
    ratio = max(values) / min(values)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 100 else (1,)))
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def weights_figure(run: RunResults) -> Picture | None:
    """Return the terms' weights over steps, if a schedule or balancing changes them."""
    curves = {name: curve for name in _terms(run) if len(curve := logged_curve(run, f"{name}_weight")) > 1}
    is_balanced = run.get("recipe.balance.kind") not in (None, "fixed")
    title = "Weights over training, balanced" if is_balanced else "Weights over training"
    return _lines("weights", title, "weight", curves, "Weights", is_log=is_balanced) if curves else None


def gradients_figure(run: RunResults) -> Picture | None:
    """Return the norms of the terms' gradients over steps, if the run measured them (`run.gradients_every`)."""
    curves = {name: curve for name in _terms(run) if len(curve := logged_curve(run, f"gradient_norm/{name}")) > 1}
    positive = {name: curve for name, curve in curves.items() if any(value > 0 for _, value in curve)}
    note = "Of each weighted term, at the student’s last hidden state, in the first micro-batch of a step."
    if lower := [name for name in curves if name not in positive]:
        note += f" Terms that act only below it: {', '.join(lower)}."
    words = ("Gradient norms of the terms", "gradient norm", positive, "Gradient norms")
    return _lines("gradients", *words, note, is_log=True) if positive else None


def _lines(
    file: str,
    title: str,
    unit: str,
    curves: dict[str, list[tuple[int, float]]],
    quantity: str,
    note: str = "",
    is_log: bool = False,
) -> Picture:
    """Return a plot with a line for each term over steps."""
    figure = canvas(title, 230)
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), cycle(SERIES), strict=False):
        axes.plot(*zip(*curve, strict=True), color=colour, label=name)
    values = [value for curve in curves.values() for _, value in curve if value > 0]
    if is_log and values:
        _log_axis(axes, values)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel(f"{unit} (log axis)" if is_log and values else unit)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(loc="outside lower left", ncols=2, borderaxespad=0.2)
    ends = "; ".join(f"{name} from {decimal(curve[0][1])} to {decimal(curve[-1][1])}" for name, curve in curves.items())
    return picture(figure, file, f"{quantity}: {ends}.", note)


def _terms(run: RunResults) -> list[str]:
    """Return the names of the terms, in the recipe's order."""
    return list({**(run.get("recipe.objective") or {}), **(run.get("training.final_terms") or {})})


def logged_curve(run: RunResults, key: str) -> list[tuple[int, float]]:
    """Return (step, value) of each log entry that has both."""
    entries = run.get("training.history") or []
    pairs = ((get_nested(entry, "step"), get_nested(entry, key)) for entry in entries)
    return [(step, value) for step, value in pairs if isinstance(value, int | float) and step is not None]


def _unit(name: str, run: RunResults) -> str:
    """Return the unit of a term; empty for one that this version does not know."""
    term = TERMS.get(name)
    if term is None:
        return run.own_terms.get(name, {}).get("unit") or ""
    return "squared error" if run.kind.output == "number" and term.formula_of_regression else term.unit
