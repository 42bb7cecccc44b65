"""Plots of scores over seeds, and of quality against latency, for one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from distil_nlp.reporting.export import EXPORTED_NAMES, single_text_setting
from distil_nlp.reporting.formatting import decimal, span
from distil_nlp.reporting.latency import EXPORT_LATENCY, RUN_LATENCY, Setting, headline_setting, latency_in
from distil_nlp.reporting.plots.style import (
    INK,
    MUTED,
    STUDENT_COLOUR,
    TEACHER_COLOUR,
    Picture,
    canvas,
    picture,
    shorten,
)
from distil_nlp.reporting.scores import (
    MAJORITY,
    SeedScores,
    headline_name,
    headline_score,
    majority_name,
    scored_models,
    teacher_word,
)
from distil_nlp.results import RunResults, get_nested

_NEAR = 0.4
"""Distance from the scores, as a fraction of their range, up to which a line is drawn; farther it is only named."""


_EXPORTED_MARKERS = {"onnx": "s", "int8": "D"}
"""Exported model → marker in the plot over latency."""


class ScoreRow(NamedTuple):
    """A model in a plot of scores: label, score, colour, and (low, high) of its interval if there is one."""

    label: str
    score: SeedScores
    colour: str
    interval: tuple[float, float] | None = None

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest number that is drawn."""
        drawn = (*self.score.values, *(self.interval or ()))
        return min(drawn), max(drawn)


def scores_figure(run: RunResults) -> Picture | None:
    """Return the scores of teacher, student and baselines, with the majority-class baseline as a line."""
    name = headline_name(run)
    scores = [(row, score) for row in scored_models(run) if row.role != MAJORITY and (score := row.score(run.metric))]
    if not scores:
        return None
    colours = {"teacher": TEACHER_COLOUR, "student": STUDENT_COLOUR}
    rows = [
        ScoreRow(row.label, score, colours.get(row.role, MUTED), score_span(run, row.role)) for row, score in scores
    ]
    medians = "; ".join(f"{row.label} {decimal(row.score.median)}{_in_words(row.interval)}" for row in rows)
    return dot_plot("scores", "Scores", rows, name, majority_line(run), f"{name}, each seed a dot: {medians}.")


def score_span(run: RunResults, role: str) -> tuple[float, float] | None:
    """Return the ends of the interval of a model's score."""
    low, high = run.get(f"intervals.{role}.low"), run.get(f"intervals.{role}.high")
    return None if low is None or high is None else (low, high)


def _in_words(interval: tuple[float, float] | None) -> str:
    return f" (interval {span(*interval)})" if interval else ""


def dot_plot(
    name: str,
    title: str,
    rows: Sequence[ScoreRow],
    axis: str,
    line: tuple[str, float] | None,
    description: str,
) -> Picture:
    """Return a plot with a row of dots for each model, a dot for each seed, on an axis that shows their differences.

    Args:
        name: the file's name.
        title: the plot's title.
        rows: from top to bottom.
        axis: the name of the axis, which need not start at 0.
        line: (name, value) of a vertical line; it is named at the edge where it is far from the scores.
        description: the plot in words.
    """
    figure = canvas(title, 82 + 30 * len(rows))
    axes = figure.subplots()
    for y, row in enumerate(rows):
        _dots(axes, y, row)
    axes.set_yticks(range(len(rows)), [shorten(row.label, 30) for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.set_xlabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if line:
        _vertical_line(axes, *line, rows)
    return picture(figure, name, description, _dots_note(rows))


def _vertical_line(axes: Axes, name: str, value: float, rows: Sequence[ScoreRow]) -> None:
    """Draw a line with its name above it; far from the scores it is no line, but named at that edge of the axis."""
    low, high = min(row.span[0] for row in rows), max(row.span[1] for row in rows)
    room = _NEAR * (high - low)
    text, at = f"{name} {decimal(value)}", value
    if value < low - room:
        text, at = f"← {text}, off this axis", axes.get_xlim()[0]
    elif value > high + room:
        text, at = f"{text}, off this axis →", axes.get_xlim()[1]
    else:
        axes.axvline(value, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    left, right = axes.get_xlim()
    align = "left" if at < (left + right) / 2 else "right"
    axes.annotate(text, (at, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                  ha=align, color=MUTED, fontsize=9.5)  # fmt: skip
    axes.set_xlim(left, right)


def _dots_note(rows: Sequence[ScoreRow]) -> str:
    """Return what dots, bars and lines are."""
    several = any(len(row.score.values) > 1 for row in rows)
    notes = [
        "Each dot is a seed, the bar their median." if several else "",
        "Thin line: 95\u00a0% interval of the score; of differences the table has narrower ones, on the same rows."
        if any(row.interval for row in rows)
        else "",
        "The axis does not start at 0.",
    ]
    return " ".join(filter(None, notes))


def _dots(axes: Axes, y: int, row: ScoreRow) -> None:
    """Draw a dot for each seed, apart so that equal ones show, a bar at the median, and its value at the right edge."""
    score, colour, seeds = row.score, row.colour, len(row.score.values)
    heights = [y + 0.3 * (i / (seeds - 1) - 0.5) if seeds > 1 else y for i in range(seeds)]
    if row.interval:
        axes.plot(row.interval, [y, y], color=colour, linewidth=1.2, alpha=0.7, gid=f"interval-{y}")
    if seeds > 1:
        axes.plot([score.median] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2.2, solid_capstyle="butt")
    alpha = 0.6 if seeds > 1 else 1
    axes.scatter(score.values, heights, s=34, color=colour, alpha=alpha, linewidths=0, zorder=3)
    axes.annotate(decimal(score.median), (1, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                  va="center", color=INK, fontsize=9.5)  # fmt: skip


def latency_figure(run: RunResults) -> Picture | None:
    """Return the headline metric over latency, for teacher and student, and for the exported models on the CPU."""
    block = EXPORT_LATENCY if run.get(EXPORT_LATENCY) else RUN_LATENCY
    setting = single_text_setting(run) if block == EXPORT_LATENCY else headline_setting(run)
    models = [("teacher", teacher_word(run), TEACHER_COLOUR, "o"), ("student", "student", STUDENT_COLOUR, "o")]
    models += [(model, EXPORTED_NAMES[model], STUDENT_COLOUR, marker) for model, marker in _EXPORTED_MARKERS.items()]
    marks = [
        ModelMark(label, time, score, colour, marker)
        for role, label, colour, marker in models
        if (time := latency_in(run, setting, role, block)) and (score := _score_of(run, role))
    ]
    if setting is None or len(marks) < 2:
        return None
    return latency_plot(marks, setting, headline_name(run), majority_line(run))


def _score_of(run: RunResults, role: str) -> SeedScores | None:
    """Return the headline score of teacher or student over the seeds, or that of an exported model."""
    value = get_nested(run.get(f"export.models.{role}"), "metrics", run.metric) if role in _EXPORTED_MARKERS else None
    return headline_score(run, role) if value is None else SeedScores(value, (value,))


def majority_line(run: RunResults) -> tuple[str, float] | None:
    """Return (name, score) of the majority-class baseline."""
    score = headline_score(run, MAJORITY)
    return (majority_name(run), score.median) if score else None


class ModelMark(NamedTuple):
    """A model in a plot over latency: label, median latency in ms, score, colour and marker."""

    label: str
    time: float
    score: SeedScores
    colour: str
    marker: str = "o"


def latency_plot(
    marks: Sequence[ModelMark],
    setting: Setting,
    axis: str,
    line: tuple[str, float] | None = None,
    name: str = "quality_latency",
    title: str = "Quality against latency",
) -> Picture:
    """Return quality over latency, with the range over seeds as a bar; `line` is (name, value) of a horizontal line."""
    columns = 3 if len(marks) < 3 else 2  # teacher, student and baseline in one line
    figure = canvas(title, 240 + 13 * (len(marks) // columns + 1))
    axes = figure.subplots()
    for label, time, score, colour, marker in marks:
        axes.plot([time] * 2, score.span, color=colour, linewidth=1.6, alpha=0.6)
        axes.plot(time, score.median, marker=marker, color=colour, markersize=7, linestyle="", label=shorten(label, 24))
    axes.margins(y=0.12)
    if line:
        axes.axhline(line[1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label=line[0])
    axes.set_xlim(0, 1.12 * max(mark.time for mark in marks))
    axes.set_xlabel(f"median latency in ms: {setting}")
    axes.set_ylabel(axis)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    figure.legend(loc="outside lower left", ncols=columns, handletextpad=0.3, borderaxespad=0.2)
    points = "; ".join(f"{label} {decimal(score.median)} at {decimal(time)} ms" for label, time, score, *_ in marks)
    return picture(figure, name, f"{axis} over latency ({setting}): {points}.", "Up and to the left is better.")
