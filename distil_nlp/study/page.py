"""The page of a study: for each task a table of its methods, their scores, and their gains over the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import plural, points
from distil_nlp.reporting.plots.gains import GainRow, gain_plot
from distil_nlp.reporting.plots.scores import ScoreRow, dot_plot
from distil_nlp.reporting.plots.style import MUTED, STUDENT_COLOUR, Picture, style
from distil_nlp.reporting.report import write_page
from distil_nlp.reporting.report.pages import Page, ReportSection
from distil_nlp.reporting.scores import SeedScores
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.reporting.verdicts import Verdict
from distil_nlp.study.table import COST, QUALITY, method_table, reference_scores

StudyRow = Mapping[str, Any]


def write_study_page(name: str, by_task: Mapping[str, Sequence[StudyRow]], folder: Path) -> Path:
    """Write `report.html`, its plots and its text into a folder; return the page.

    Args:
        name: of the study.
        by_task: task → the rows of its methods, the best first.
        folder: written to.
    """
    with style():
        sections = [section for task, rows in by_task.items() for section in _sections(task, rows)]
    methods = {row["method"] for rows in by_task.values() for row in rows}
    seeds = max(row["seeds"] for rows in by_task.values() for row in rows)
    subject = f"study · {plural(len(methods), 'method')} · {', '.join(by_task)} · {plural(seeds, 'seed')} each"
    said = {task: _verdict(rows) for task, rows in by_task.items()}
    lead = " ".join(f"{task}: {text}" if len(said) > 1 else text for task, text in said.items())
    of_no_use = [
        Verdict("stop", f"{row['method']} on {task}: {row['stop']}")
        for task, rows in by_task.items()
        for row in rows
        if row["stop"]
    ]
    return write_page(Page(name, subject, lead, _remarks(by_task), sections, verdicts=of_no_use), folder)


def _sections(task: str, rows: Sequence[StudyRow]) -> tuple[ReportSection, ReportSection]:
    """Return the sections of a task: the quality of its methods, and their cost."""
    first, lines = rows[0], method_table(rows)
    reading = "Points are hundredths of the metric. won: seeds with a better score."
    units = "Seconds of a training step, and the peak memory of the run’s process."
    quality = _columns("Methods", lines, QUALITY, reading)
    cost = _columns(f"{task}: cost", lines, COST, units)
    sentence = f"Scores are {first['metric']} after {first['steps']:,} steps: {reference_scores(first)}."
    pictures = [_scores(task, rows), _gains(task, rows)]
    return ReportSection(task, [sentence], [quality], pictures), ReportSection(f"{task}: cost", (), [cost])


def _columns(caption: str, lines: Sequence[Sequence[str]], columns: slice, note: str) -> Table | None:
    """Return some columns of `method_table`, after the names of the methods."""
    head, *cells = [[line[0], *line[columns]] for line in lines]
    return make_table(caption, head, cells, note)


def _scores(task: str, rows: Sequence[StudyRow]) -> Picture:
    dots = [
        ScoreRow(
            row["method"],
            SeedScores(row["median"], tuple(row["values"])),
            MUTED if row["gain"] is None else STUDENT_COLOUR,
        )
        for row in rows
    ]
    said = "; ".join(f"{row['method']} {row['median']:.3f}" for row in rows)
    metric, teacher = rows[0]["metric"], rows[0]["teacher"]
    line = None if teacher is None else ("teacher", teacher)
    return dot_plot(f"scores-{task}", "Scores", dots, metric, line, f"{metric}, each seed a dot: {said}.")


def _gains(task: str, rows: Sequence[StudyRow]) -> Picture | None:
    gains = [row for row in rows if row["gain"]]
    if not gains:
        return None
    first = gains[0]
    lines = [GainRow(row["method"], *(row["gain"][key] for key in ("mean", "low", "high"))) for row in gains]
    lines.sort(key=lambda line: -line.mean)
    return gain_plot(f"gains-{task}", lines, first["compared_with"], first["metric"], first["gain"]["level"])


def _verdict(rows: Sequence[StudyRow]) -> str:
    """Return which method is ahead of the baseline, if one of use is beyond the noise."""
    ahead = [row for row in rows if row["gain"] and row["gain"]["low"] > 0 and not row["stop"]]
    baseline = rows[0]["compared_with"]
    if not ahead:
        return f"No method is ahead of {baseline} beyond the noise."
    best = max(ahead, key=lambda row: row["gain"]["mean"])
    gain = best["gain"]
    interval = f"{points(gain['low'], '+')} to {points(gain['high'], '+')}"
    return f"{best['method']} is {points(gain['mean'])} points ahead of {baseline} ({interval})."


def _remarks(by_task: Mapping[str, Sequence[StudyRow]]) -> list[str]:
    """Return what limits the comparison."""
    rows = [row for part in by_task.values() for row in part]
    compared, remarks = sum(row["gain"] is not None for row in rows), []
    if compared > 5:
        remarks.append(
            f"{compared} comparisons at a level of 95 % each: about {max(round(0.05 * compared), 1)} of them would be "
            "beyond the noise by chance."
        )
    if any(row["seeds"] == 1 for row in rows):
        remarks.append("Where a method has one seed, the interval covers the choice of rows alone.")
    return remarks
