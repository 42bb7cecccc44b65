"""Tables, sentences and plots that compare several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distil_nlp.reporting.formatting import (
    decimal,
    duration,
    large,
    milliseconds,
    percent,
    times,
)
from distil_nlp.reporting.latency import headline_setting, latency_in, speed_up
from distil_nlp.reporting.plots.scores import ModelMark, ScoreRow, dot_plot, latency_plot, score_span
from distil_nlp.reporting.plots.style import SERIES, TEACHER_COLOUR, Picture
from distil_nlp.reporting.scores import LABELS_ONLY, SeedScores, headline_name, headline_score
from distil_nlp.reporting.tables import EMPTY_CELL, Table, format_gain, format_median, format_range, make_table
from distil_nlp.reporting.verdicts import stop_verdict
from distil_nlp.results import RunResults
from distil_nlp.utils.settings import IRRELEVANT_KEYS, flatten

_MARKERS = "osD^vP"


def comparison_headline(runs: Sequence[RunResults]) -> str:
    """Return the run with the highest retention, as a sentence; none whose student is of no use."""
    best = _ranked([run for run in runs if not stop_verdict(run)])[:1]
    if not best:
        return f"{len(runs)} runs side by side."
    return f"{best[0].name} keeps most: {percent(best[0].get('retention'))} of its teacher’s {headline_name(best[0])}."


def _ranked(runs: Sequence[RunResults]) -> list[RunResults]:
    """Return the runs with a retention, the highest first."""
    return sorted(
        (run for run in runs if run.get("retention") is not None), key=lambda run: run.get("retention"), reverse=True
    )


def comparison_remarks(runs: Sequence[RunResults], is_paired: bool) -> list[str]:
    """Return what limits a comparison of these runs.

    Args:
        runs: compared.
        is_paired: whether they are compared row by row, so that ranges over seeds tell nothing more.
    """
    remarks = []
    if not same_task(runs):
        remarks.append("The runs are on different tasks: compare retention, not scores.")
    elif len(_teacher_scores(runs)) > 1:
        remarks.append("The teachers’ scores differ: other teachers, or other evaluation rows.")
    if len({run.get("efficiency.device") for run in runs} - {None}) > 1:
        remarks.append("Latencies were measured on different devices.")
    if any((score := headline_score(run, "student")) and len(score.values) == 1 for run in runs):
        remarks.append("Where a run has one seed, small differences may be chance.")
    return remarks if is_paired else [*remarks, *_overlap(runs)]


def _overlap(runs: Sequence[RunResults]) -> list[str]:
    """Return a remark if the ranges over seeds of the two best runs overlap."""
    best = _ranked(runs)[:2]
    scores = [_comparable(run, runs) for run in best]
    if len(best) < 2 or not all(score and len(score.values) > 1 for score in scores):
        return []
    (first_low, _), (_, second_high) = (score.span for score in scores if score)
    if second_high < first_low:
        return []
    return [f"The seeds of {best[0].name} and {best[1].name} overlap: which of them is better may be chance."]


def same_task(runs: Sequence[RunResults]) -> bool:
    """Return True if all runs have one task and one headline metric."""
    return len({(run.task, run.metric) for run in runs}) == 1


def overview_table(runs: Sequence[RunResults]) -> Table | None:
    """Return a table with a line for each run."""
    setting = headline_setting(*runs)
    same, teacher = same_task(runs), _teacher_scores(runs)
    head = ["run", "task", "metric", _axis(runs) if same else "student", "range (seeds)", "teacher", "retention",
            "student’s gain, points", "parameters", "latency, ms", "speed-up",
            "training"]  # fmt: skip
    rows = [
        (
            run.name,
            "" if same else run.task,
            "" if same else headline_name(run),
            format_median(headline_score(run, "student")),
            format_range(headline_score(run, "student")),
            "" if len(teacher) == 1 else format_median(headline_score(run, "teacher")),
            percent(run.get("retention")),
            format_gain(run.get(f"{LABELS_ONLY}.gain")),
            large(run.get("student.parameters")),
            milliseconds(latency_in(run, setting, "student")),
            times(speed_up(run, setting)),
            duration(run.get("training.seconds")),
        )
        for run in runs
    ]
    note = "Scores: median of the seeds."
    if any(run.get(f"{LABELS_ONLY}.gain") for run in runs):
        note += " Gain: over labels only, the same student after the same steps."
    note += f" Latency: median, {setting}." if setting else ""
    return make_table("Runs", head, rows, f"{note} Teacher: {teacher.pop()}." if len(teacher) == 1 else note)


def recipe_differences(runs: Sequence[RunResults]) -> Table | None:
    """Return the recipe keys whose values differ between the runs; null counts as absent."""
    recipes = [{key: _shown(value) for key, value in flatten(run.get("recipe") or {}).items()} for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe if not key.startswith(IRRELEVANT_KEYS))
    rows = [(key, *(recipe.get(key) or EMPTY_CELL for recipe in recipes)) for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return make_table("What differs between the recipes", ("key", *(run.name for run in runs)), differing)


def _shown(value: Any) -> str:
    if value is None or value == {}:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def comparison_scores_figure(runs: Sequence[RunResults]) -> Picture | None:
    """Return every seed of every run: scores on one task, retention on several tasks."""
    scores = [(run, score) for run in runs if (score := _comparable(run, runs))]
    if not scores:
        return None
    spans = {run.name: score_span(run, "student") if same_task(runs) else None for run in runs}
    rows = [ScoreRow(run.name, score, SERIES[0], spans[run.name]) for run, score in scores]
    teacher = headline_score(runs[0], "teacher") if len(_teacher_scores(runs)) == 1 else None
    if not same_task(runs):
        teacher = SeedScores(1.0, (1.0,))
    teacher_line = ("teacher", teacher.median) if teacher else None
    axis = _axis(runs)
    medians = "; ".join(f"{name} {decimal(score.median)}" for name, score, *_ in rows)
    return dot_plot("scores", "Scores", rows, axis, teacher_line, f"{axis}: {medians}.")


def comparison_latency_figure(runs: Sequence[RunResults]) -> Picture | None:
    """Return quality against latency of the students, and of the teacher if all have the same."""
    setting = headline_setting(*runs)
    models = [(run.name, latency_in(run, setting, "student"), _comparable(run, runs)) for run in runs]
    marks = [
        ModelMark(name, time, score, *_colour_and_marker(i))
        for i, (name, time, score) in enumerate(models)
        if time and score
    ]
    time = latency_in(runs[0], setting, "teacher")
    teacher: Any = headline_score(runs[0], "teacher")
    if len(_teacher_scores(runs)) == 1 and time:
        marks.append(ModelMark("teacher", time, teacher, TEACHER_COLOUR, "*"))
    return latency_plot(marks, setting, _axis(runs)) if marks and setting is not None else None


def _colour_and_marker(i: int) -> tuple[str, str]:
    """Return the colour and the marker of the i-th run."""
    colours = [colour for colour in SERIES if colour != TEACHER_COLOUR]
    return colours[i % len(colours)], _MARKERS[i % len(_MARKERS)]


def _comparable(run: RunResults, runs: Sequence[RunResults]) -> SeedScores | None:
    """Return the student's score, or its retention if the runs' scores cannot be compared."""
    score, teacher = headline_score(run, "student"), headline_score(run, "teacher")
    if score is None or same_task(runs):
        return score
    if teacher is None or teacher.median <= 0:
        return None
    return SeedScores(score.median / teacher.median, tuple(value / teacher.median for value in score.values))


def _teacher_scores(runs: Sequence[RunResults]) -> set[str]:
    """Return the distinct teachers' scores as text; empty if they cannot be compared."""
    return {format_median(headline_score(run, "teacher")) for run in runs if same_task(runs)} - {""}


def _axis(runs: Sequence[RunResults]) -> str:
    """Return the name of the quantity that is compared."""
    return headline_name(runs[0]) if same_task(runs) else "retention (student ÷ teacher)"
