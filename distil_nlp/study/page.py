"""The page of a study: for each task a table of its methods, their scores, and their gains over the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import percent, plural, points
from distil_nlp.reporting.plots.gains import GainRow, gain_plot
from distil_nlp.reporting.plots.scores import ScoreRow, dot_plot
from distil_nlp.reporting.plots.style import MUTED, STUDENT_COLOUR, Picture, style
from distil_nlp.reporting.report import write_page
from distil_nlp.reporting.report.pages import Page, ReportSection
from distil_nlp.reporting.scores import SeedScores
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.reporting.verdicts import Verdict
from distil_nlp.study.axes import Axis
from distil_nlp.study.choice import choice_sentences, worth_sentences
from distil_nlp.study.pictures import axis_pictures, compute_pictures
from distil_nlp.study.statistics import interquartile_mean
from distil_nlp.study.table import method_costs, method_students, method_table, reference_scores, row_label, shown_steps

StudyRow = Mapping[str, Any]
_ALPHA = 0.05
"""Probability of a difference by chance below which a verdict is given."""


def write_study_page(
    name: str,
    by_task: Mapping[str, Sequence[StudyRow]],
    folder: Path,
    axes: Sequence[Axis] = (),
    further: Callable[[str], Sequence[ReportSection]] = lambda task: (),
) -> Path:
    """Write `report.html`, its plots and its text into a folder; return the page.

    Args:
        name: of the study.
        by_task: task → the rows of its methods, the best first.
        folder: written to.
        axes: what was varied besides the methods.
        further: task → sections that follow its own.
    """
    with style():
        sections = [
            section for task, rows in by_task.items() for section in (*_sections(task, rows, axes), *further(task))
        ]
        sections += [ReportSection("All tasks together", (), [_over_tasks(by_task)])] if len(by_task) > 1 else []
    every = [row for rows in by_task.values() for row in rows]
    runs, seeds = len({(row["method"], row_label(row)) for row in every}), max(row["seeds"] for row in every)
    what = plural(runs, "cell" if axes else "method")
    subject = f"study · {what} · {', '.join(by_task)} · {plural(seeds, 'seed')} each"
    said = {task: _verdict(rows) for task, rows in by_task.items()}
    lead = " ".join(f"{task}: {text}" if len(said) > 1 else text for task, text in said.items())
    of_no_use = [verdict for task, rows in by_task.items() for verdict in _of_no_use(task, rows)]
    return write_page(Page(name, subject, lead, _remarks(by_task), sections, verdicts=of_no_use), folder)


def _of_no_use(task: str, rows: Sequence[StudyRow]) -> list[Verdict]:
    """Return what is said of rows that are of no use; once where several are for one reason, as tables have scores."""
    reasons: dict[str, list[StudyRow]] = {}
    for row in filter(itemgetter("stop"), rows):
        reasons.setdefault(row["stop"].partition(":")[0].rstrip("."), []).append(row)
    return [
        Verdict("stop", f"{row_label(some[0])} on {task}: {some[0]['stop']}")
        if len(some) == 1
        else Verdict("stop", f"{', '.join(map(row_label, some))} on {task}, each: {reason}.")
        for reason, some in reasons.items()
    ]


def _sections(task: str, rows: Sequence[StudyRow], axes: Sequence[Axis]) -> list[ReportSection]:
    """Return the sections of a task: the quality of its methods, what to choose, and their cost."""
    first = rows[0]
    reading = (
        "Points are hundredths of the metric. won: seeds with a better score. p, Holm: of the gain, corrected for all "
        "comparisons of the table."
    )
    units = (
        "Seconds of a training step, and the peak memory of the run’s process; then what a student took in all stages "
        "of its training scheme. Tokens count each time that a model reads them, or learns from them; operations are "
        "those of the matrix products of all models. The teacher’s own training is not counted."
    )
    quality = _table("Methods", method_table(rows), reading)
    cost = _table(f"{task}: cost", method_costs(rows), units)
    sentence = f"Scores are {first['metric']} after {shown_steps(rows)} steps: {reference_scores(rows)}."
    of_axes = axis_pictures(task, rows, axes)
    pictures: list[Picture | None] = [*of_axes] or [_scores(task, rows), _gains(task, rows)]
    spent = compute_pictures(task, rows)
    sizes = method_students(rows)
    students = [ReportSection(f"{task}: students", (), [_table("Students", sizes, _of_sizes(rows))])] if sizes else []
    return [
        ReportSection(
            task, [sentence, *choice_sentences(rows, axes), *worth_sentences(rows, axes)], [quality], pictures
        ),
        *students,
        ReportSection(f"{task}: cost", (), [cost], spent),
    ]


def _of_sizes(rows: Sequence[StudyRow]) -> str:
    """Return the note of the table of students."""
    settings = {row["student"]["setting"] for row in rows} - {None}
    timed = [f"ms: median latency, {settings.pop()}."] if settings else []
    sizes = "Parameters of all, and of the transformer’s layers alone; megabytes of the weights."
    before = "Scores before any training: cut, as it was cut from the teacher; start, as its training begins."
    return " ".join([sizes, *timed, before])


def _over_tasks(by_task: Mapping[str, Sequence[StudyRow]]) -> Table | None:
    """Return the interquartile mean of the retention of each method that all tasks have, the best first."""
    of_task = [{row_label(row): row for row in rows if (row["teacher"] or 0) > 0} for rows in by_task.values()]
    labels = [label for label in of_task[0] if all(label in rows for rows in of_task)]
    means = {
        label: interquartile_mean(
            [[value / rows[label]["teacher"] for value in rows[label]["values"]] for rows in of_task]
        )
        for label in labels
    }
    lines = [
        (label, percent(mean), f"{percent(low)} to {percent(high)}" if low < high else "")
        for label, (mean, low, high) in sorted(means.items(), key=lambda item: -item[1][0])
    ]
    note = (
        "Mean of the middle half of score ÷ teacher’s, over tasks and seeds. The interval is of the choice of seeds, "
        "drawn anew within tasks, and not of the rows."
    )
    return make_table("Interquartile mean of the retention", ("method", "mean", "95 % interval"), lines, note)


def _table(caption: str, lines: Sequence[Sequence[str]], note: str) -> Table | None:
    head, *cells = lines
    return make_table(caption, head, cells, note)


def _scores(task: str, rows: Sequence[StudyRow]) -> Picture:
    dots = [
        ScoreRow(
            row_label(row),
            SeedScores(row["median"], tuple(row["values"])),
            MUTED if row["gain"] is None else STUDENT_COLOUR,
        )
        for row in rows
    ]
    said = "; ".join(f"{row_label(row)} {row['median']:.3f}" for row in rows)
    metric, teacher = rows[0]["metric"], rows[0]["teacher"]
    line = None if teacher is None else ("teacher", teacher)
    return dot_plot(f"scores-{task}", "Scores", dots, metric, line, f"{metric}, each seed a dot: {said}.")


def _gains(task: str, rows: Sequence[StudyRow]) -> Picture | None:
    gains = [row for row in rows if row["gain"]]
    if not gains:
        return None
    first = gains[0]
    lines = [GainRow(row_label(row), *(row["gain"][key] for key in ("mean", "low", "high"))) for row in gains]
    lines.sort(key=lambda line: -line.mean)
    return gain_plot(f"gains-{task}", lines, first["compared_with"], first["metric"], first["gain"]["level"])


def _verdict(rows: Sequence[StudyRow]) -> str:
    """Return which method of use is ahead of the baseline: beyond the noise of all comparisons, or by itself alone."""
    baseline, compared = rows[0]["compared_with"], [row for row in rows if row["gain"]]
    if not compared:
        return f"Nothing was compared with {baseline}."
    ahead = [row for row in compared if row["gain"]["low"] > 0 and not row["stop"]]
    if not ahead:
        return f"No method is ahead of {baseline} beyond the noise."
    sure = [row for row in ahead if row["gain"]["p_holm"] < _ALPHA]
    best = max(sure or ahead, key=lambda row: row["gain"]["mean"])
    gain, place = best["gain"], " at the same point" if any(map(itemgetter("point"), rows)) else ""
    interval = f"{points(gain['low'], '+')} to {points(gain['high'], '+')}"
    told = f"{row_label(best)} is {points(gain['mean'])} points ahead of {baseline}{place} ({interval})"
    return f"{told}." if sure else f"{told} by itself, but not as one of {plural(len(compared), 'comparison')}."


def _remarks(by_task: Mapping[str, Sequence[StudyRow]]) -> list[str]:
    """Return what limits the comparison."""
    rows = [row for part in by_task.values() for row in part]
    compared, remarks = sum(row["gain"] is not None for row in rows), []
    if compared > 5:
        remarks.append(
            f"{compared} comparisons at a level of 95 % each: if none differed, about {_ALPHA * compared:.1f} of them "
            "would be beyond the noise by chance. p, Holm takes that into account."
        )
    if any(row["seeds"] == 1 for row in rows):
        remarks.append("Where a method has one seed, intervals and p cover the choice of rows alone.")
    return remarks
