"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distil_nlp.reporting.formatting import duration, large, milliseconds, percent, plain, times
from distil_nlp.reporting.plots.scores import Mark, common_batch, strip, trade
from distil_nlp.reporting.plots.style import SERIES, TEACHER, Picture
from distil_nlp.reporting.scores import LABELS_ALONE, Score, headline_name, headline_score
from distil_nlp.reporting.sentences import speed_up
from distil_nlp.reporting.tables import Table, gain, median, seeds, table
from distil_nlp.results import Run

_MARKERS = "osD^vP"
_NOT_COMPARED = ("run.", "hub.", "training.output_dir")


def lead(runs: Sequence[Run]) -> str:
    """Which run keeps most of its teacher."""
    best = _ranked(runs)[:1]
    if not best:
        return f"{len(runs)} runs side by side."
    return f"{best[0].name} keeps most: {percent(best[0]('retention'))} of its teacher’s {headline_name(best[0])}."


def _ranked(runs: Sequence[Run]) -> list[Run]:
    return sorted((run for run in runs if run("retention") is not None), key=lambda run: run("retention"), reverse=True)


def remarks(runs: Sequence[Run]) -> list[str]:
    """What makes runs hard to compare."""
    found = []
    if not same_task(runs):
        found.append("The runs are on different tasks: compare retention, not scores.")
    elif len(_teacher_scores(runs)) > 1:
        found.append("The teachers’ scores differ: other teachers, or other evaluation rows.")
    if len({run("efficiency.device") for run in runs} - {None}) > 1:
        found.append("Latencies were taken on different devices.")
    if any((score := headline_score(run, "student")) and len(score.values) == 1 for run in runs):
        found.append("Where a run has one seed, small differences may be chance.")
    return [*found, *_overlap(runs)]


def _overlap(runs: Sequence[Run]) -> list[str]:
    """Whether the seeds of the two best runs tell them apart."""
    best = _ranked(runs)[:2]
    scores = [_comparable(run, runs) for run in best]
    if len(best) < 2 or not all(score and len(score.values) > 1 for score in scores):
        return []
    (first_low, _), (_, second_high) = (score.span for score in scores)
    if second_high < first_low:
        return []
    return [f"The seeds of {best[0].name} and {best[1].name} overlap: which of them is better may be chance."]


def same_task(runs: Sequence[Run]) -> bool:
    return len({(run.task, run.metric) for run in runs}) == 1


def overview(runs: Sequence[Run]) -> Table | None:
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
            median(headline_score(run, "student")),
            seeds(headline_score(run, "student")),
            "" if len(teacher) == 1 else median(headline_score(run, "teacher")),
            percent(run("retention")),
            gain(run(f"{LABELS_ALONE}.gain")),
            large(run("student.parameters")),
            milliseconds(run(f"student.latency_ms.{batch}.median")),
            times(speed_up(run)[1]),
            duration(run("training.seconds")),
        )
        for run in runs
    ]
    note = "Scores: median of the seeds. Gain: over labels alone, the same student after the same steps."
    return table("Runs", head, rows, f"{note} Teacher: {teacher.pop()}." if len(teacher) == 1 else note)


def differences(runs: Sequence[Run]) -> Table | None:
    """The keys of the recipes that are not the same in all."""
    recipes = [dict(_flat(run("recipe") or {})) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe if not key.startswith(_NOT_COMPARED))
    rows = [(key, *(recipe.get(key, "") for recipe in recipes)) for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return table("What differs between the recipes", ("key", *(run.name for run in runs)), differing)


def _flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """section.key and its value as text; null is as good as absent."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        elif value is not None:
            yield f"{path}{key}", str(value).lower() if isinstance(value, bool) else str(value)


def scores_figure(runs: Sequence[Run]) -> Picture | None:
    """Every seed of every run: on one task the scores, on several the share of the teacher's that is kept."""
    found = [(run, score) for run in runs if (score := _comparable(run, runs))]
    if not found:
        return None
    rows = [(run.name, score, SERIES[0]) for run, score in found]
    teacher = headline_score(runs[0], "teacher") if len(_teacher_scores(runs)) == 1 else None
    if not same_task(runs):
        teacher = Score(1.0, (1.0,))
    axis = _axis(runs)
    said = "; ".join(f"{name} {plain(score.median)}" for name, score, _ in rows)
    return strip("scores", "Scores", rows, axis, teacher and ("teacher", teacher.median), f"{axis}: {said}.")


def trade_figure(runs: Sequence[Run]) -> Picture | None:
    """Students, and the teacher where all have the same."""
    batch = common_batch(runs)
    found = [(run.name, run(f"student.latency_ms.{batch}.median"), _comparable(run, runs)) for run in runs]
    marks = [Mark(*one, *_look(i)) for i, one in enumerate(found) if one[1] and one[2]]
    time = runs[0](f"teacher.latency_ms.{batch}.median")
    if len(_teacher_scores(runs)) == 1 and time:
        marks.append(Mark("teacher", time, headline_score(runs[0], "teacher"), TEACHER, "*"))
    return trade(marks, batch, _axis(runs)) if marks else None


def _look(i: int) -> tuple[str, str]:
    colours = [colour for colour in SERIES if colour != TEACHER]
    return colours[i % len(colours)], _MARKERS[i % len(_MARKERS)]


def _comparable(run: Run, runs: Sequence[Run]) -> Score | None:
    """The student's score, or its share of the teacher's where the runs' scores do not compare."""
    score, teacher = headline_score(run, "student"), headline_score(run, "teacher")
    if score is None or same_task(runs):
        return score
    if teacher is None or teacher.median <= 0:
        return None
    return Score(score.median / teacher.median, tuple(value / teacher.median for value in score.values))


def _teacher_scores(runs: Sequence[Run]) -> set[str]:
    """The teachers' scores as they are shown; none where they do not compare."""
    return {median(headline_score(run, "teacher")) for run in runs if same_task(runs)} - {""}


def _axis(runs: Sequence[Run]) -> str:
    return headline_name(runs[0]) if same_task(runs) else "share of the teacher’s score"
