"""The table of a run of several tasks: `tasks.json`, `tasks.md`, and a page that leads to the report of each task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import count, decimal, duration, percent, plural
from distil_nlp.reporting.markdown import drop_empty, markdown_table, terminal_table
from distil_nlp.reporting.report.pages import Page, ReportSection
from distil_nlp.reporting.report.write import write_page
from distil_nlp.reporting.scores import headline_name, scored_models
from distil_nlp.reporting.tables import format_gain, make_table
from distil_nlp.results import RunResults, read_runs
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

TASKS_FILE = "tasks.json"
_HEAD = (
    ("task", "metric", "guess", "teacher", "student", "retention"),
    ("labels only", "gain over labels only, points", "trained alone", "gain over trained alone, points"),
    ("training rows", "steps", "time"),
)
_NOTE = (
    "Scores are those of the first evaluation split, medians over seeds. Steps and time are those of the task. "
    "“Trained alone” is the baseline `plain`: a student of this task alone, for as many steps as the task had here."
)


def write_tasks(folder: Path, names: Sequence[str]) -> Path:
    """Write the table of finished tasks, log it, and return the path of its JSON file.

    Args:
        folder: of the run.
        names: of the tasks, whose folders are in it.
    """
    runs = read_runs([folder / name for name in names])
    rows = [_facts(name, run) for name, run in zip(names, runs, strict=True)]
    cells = [[*sum(_HEAD, ())], *map(_cells, rows)]
    table = drop_empty(cells)
    write_atomically(folder / TASKS_FILE, json.dumps(rows, indent=1) + "\n")
    write_atomically(folder / "tasks.md", markdown_table(table) + f"\n\n{_NOTE}\n")
    page = write_page(_page(folder, runs[0], names, cells), folder / "report")
    logger.info(f"\nall tasks\n{terminal_table(table)}\nreport: {page}")
    return folder / TASKS_FILE


def _facts(name: str, run: RunResults) -> dict[str, Any]:
    """Return the figures of a task."""
    models = {row.role: row for row in scored_models(run)}
    scores = {role: score.median for role, row in models.items() if (score := row.score(run.metric))}
    return {
        "name": name,
        "task": run.task,
        "metric": run.metric,
        "metric_name": headline_name(run),
        "scores": scores,
        "retention": run.get("retention"),
        "gains": {role: row.gain for role, row in models.items() if row.gain},
        "training_rows": run.get("rows.train"),
        "steps": run.get("training.steps"),
        "seconds": run.get("training.seconds"),
        "folder": name,
    }


def _cells(facts: dict[str, Any]) -> list[str]:
    scores, gains = facts["scores"], facts["gains"]
    return [
        facts["name"],
        facts["metric_name"],
        *(decimal(scores.get(role)) for role in ("majority", "teacher", "student")),
        percent(facts["retention"]),
        decimal(scores.get("no_distillation")),
        format_gain(gains.get("no_distillation")),
        decimal(scores.get("plain")),
        format_gain(gains.get("plain")),
        count(facts["training_rows"]),
        count(facts["steps"]),
        duration(facts["seconds"]),
    ]


def _page(folder: Path, first: RunResults, names: Sequence[str], cells: Sequence[Sequence[str]]) -> Page:
    """Return the page of all tasks."""
    layers = first.get("student.initialisation.teacher_layers")
    subject = f"several tasks at once · {plural(len(names), 'task')} · {', '.join(names)}"
    encoder = first.get("student.encoder_parameters")
    lead = f"One encoder of {encoder:,} parameters, and a head for each of {plural(len(names), 'task')}."
    start = (
        [f"The encoder starts from blocks {', '.join(map(str, layers))} of the teacher of {names[0]}."]
        if layers
        else []
    )
    reports = ", ".join(f"{name}/report/report.html" for name in names)
    remarks = [*start, f"Each task has a folder of its own, with its student and its report: {reports}."]
    head, *rows = cells
    section = ReportSection("Tasks", tables=[make_table("Tasks", head, rows, _NOTE)])
    return Page(folder.name, subject, lead, remarks, [section])
