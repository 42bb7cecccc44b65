"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distil_nlp.reporting.formatting import (
    decimal,
    duration,
    large,
    milliseconds,
    percent,
    times,
)
from distil_nlp.reporting.plots.scores import ModelMark, common_batch, dot_plot, latency_plot
from distil_nlp.reporting.plots.style import SERIES, TEACHER_COLOUR, Picture
from distil_nlp.reporting.scores import LABELS_ONLY, SeedScores, headline_name, headline_score
from distil_nlp.reporting.sentences import speed_up
from distil_nlp.reporting.tables import Table, format_gain, format_median, format_range, make_table
from distil_nlp.results import RunResults

_MARKERS = "osD^vP"
_NOT_COMPARED = ("run.", "hub.", "training.output_dir")


def comparison_headline(runs: Sequence[RunResults]) -> str:
    """Which run keeps most of its teacher."""
    best = _ranked(runs)[:1]
    if not best:
        return f"{len(runs)} runs side by side."
    return f"{best[0].name} keeps most: {percent(best[0].get('retention'))} of its teacher’s {headline_name(best[0])}."


def _ranked(runs: Sequence[RunResults]) -> list[RunResults]:
    return sorted(
        (run for run in runs if run.get("retention") is not None), key=lambda run: run.get("retention"), reverse=True
    )


def comparison_remarks(runs: Sequence[RunResults]) -> list[str]:
    """What makes runs hard to compare."""
    found = []
    if not same_task(runs):
        found.append("The runs are on different tasks: compare retention, not scores.")
    elif len(_teacher_scores(runs)) > 1:
        found.append("The teachers’ scores differ: other teachers, or other evaluation rows.")
    if len({run.get("efficiency.device") for run in runs} - {None}) > 1:
        found.append("Latencies were taken on different devices.")
    if any((score := headline_score(run, "student")) and len(score.values) == 1 for run in runs):
        found.append("Where a run has one seed, small differences may be chance.")
    return [*found, *_overlap(runs)]


def _overlap(runs: Sequence[RunResults]) -> list[str]:
    """Whether the seeds of the two best runs tell them apart."""
    best = _ranked(runs)[:2]
    scores = [_comparable(run, runs) for run in best]
    if len(best) < 2 or not all(score and len(score.values) > 1 for score in scores):
        return []
    (first_low, _), (_, second_high) = (score.span for score in scores)
    if second_high < first_low:
        return []
    return [f"The seeds of {best[0].name} and {best[1].name} overlap: which of them is better may be chance."]


def same_task(runs: Sequence[RunResults]) -> bool:
    return len({(run.task, run.metric) for run in runs}) == 1


def overview_table(runs: Sequence[RunResults]) -> Table | None:
    """A line for each run."""
    batch = common_batch(runs)
    same, teacher = same_task(runs), _teacher_scores(runs)
    head = ["run", "task", "metric", _axis(runs) if same else "student", "range (seeds)", "teacher", "retention",
            "student’s gain, points", "parameters", f"latency, batch {batch}, ms", "speed-up",
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
            milliseconds(run.get(f"student.latency_ms.{batch}.median")),
            times(speed_up(run)[1]),
            duration(run.get("training.seconds")),
        )
        for run in runs
    ]
    note = "Scores: median of the seeds. Gain: over labels alone, the same student after the same steps."
    return make_table("Runs", head, rows, f"{note} Teacher: {teacher.pop()}." if len(teacher) == 1 else note)


def recipe_differences(runs: Sequence[RunResults]) -> Table | None:
    """The keys of the recipes that are not the same in all."""
    recipes = [dict(_flat(run.get("recipe") or {})) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe if not key.startswith(_NOT_COMPARED))
    rows = [(key, *(recipe.get(key, "") for recipe in recipes)) for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return make_table("What differs between the recipes", ("key", *(run.name for run in runs)), differing)


def _flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """section.key and its value as text; null is as good as absent."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        elif value is not None:
            yield f"{path}{key}", str(value).lower() if isinstance(value, bool) else str(value)


def comparison_scores_figure(runs: Sequence[RunResults]) -> Picture | None:
    """Every seed of every run: on one task the scores, on several the share of the teacher's that is kept."""
    found = [(run, score) for run in runs if (score := _comparable(run, runs))]
    if not found:
        return None
    rows = [(run.name, score, SERIES[0]) for run, score in found]
    teacher = headline_score(runs[0], "teacher") if len(_teacher_scores(runs)) == 1 else None
    if not same_task(runs):
        teacher = SeedScores(1.0, (1.0,))
    axis = _axis(runs)
    said = "; ".join(f"{name} {decimal(score.median)}" for name, score, _ in rows)
    return dot_plot("scores", "Scores", rows, axis, teacher and ("teacher", teacher.median), f"{axis}: {said}.")


def comparison_latency_figure(runs: Sequence[RunResults]) -> Picture | None:
    """Students, and the teacher where all have the same."""
    batch = common_batch(runs)
    found = [(run.name, run.get(f"student.latency_ms.{batch}.median"), _comparable(run, runs)) for run in runs]
    marks = [ModelMark(*one, *_look(i)) for i, one in enumerate(found) if one[1] and one[2]]
    time = runs[0].get(f"teacher.latency_ms.{batch}.median")
    if len(_teacher_scores(runs)) == 1 and time:
        marks.append(ModelMark("teacher", time, headline_score(runs[0], "teacher"), TEACHER_COLOUR, "*"))
    return latency_plot(marks, batch, _axis(runs)) if marks else None


def _look(i: int) -> tuple[str, str]:
    colours = [colour for colour in SERIES if colour != TEACHER_COLOUR]
    return colours[i % len(colours)], _MARKERS[i % len(_MARKERS)]


def _comparable(run: RunResults, runs: Sequence[RunResults]) -> SeedScores | None:
    """The student's score, or its share of the teacher's where the runs' scores do not compare."""
    score, teacher = headline_score(run, "student"), headline_score(run, "teacher")
    if score is None or same_task(runs):
        return score
    if teacher is None or teacher.median <= 0:
        return None
    return SeedScores(score.median / teacher.median, tuple(value / teacher.median for value in score.values))


def _teacher_scores(runs: Sequence[RunResults]) -> set[str]:
    """The teachers' scores as they are shown; none where they do not compare."""
    return {format_median(headline_score(run, "teacher")) for run in runs if same_task(runs)} - {""}


def _axis(runs: Sequence[RunResults]) -> str:
    return headline_name(runs[0]) if same_task(runs) else "share of the teacher’s score"
