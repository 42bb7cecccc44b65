"""The tables of a run of several tasks: `tasks.json`, `tasks.md`, and a page that leads to the report of each task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.errors import listed
from distil_nlp.reporting.formatting import count, decimal, duration, percent, plural, points
from distil_nlp.reporting.markdown import markdown_table, terminal_table
from distil_nlp.reporting.report.comparison_verdicts import own_verdicts
from distil_nlp.reporting.report.pages import Page, ReportSection
from distil_nlp.reporting.report.write import write_page
from distil_nlp.reporting.scores import headline_name, is_within_noise, scored_models
from distil_nlp.reporting.tables import Table, format_gain, make_table
from distil_nlp.reporting.verdicts import Verdict, measured_gain, verdict_lines
from distil_nlp.results import RunResults, read_runs
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

TASKS_FILE = "tasks.json"
_TABLES = {
    "Scores": ("task", "metric", "guess", "teacher", "student", "retention"),
    "Gains": (
        "task",
        "labels only",
        "gain over labels only, points",
        "trained alone",
        "gain over trained alone, points",
    ),
    "Training": ("task", "rows", "steps", "time"),
}
_NOTES = {
    "Scores": "Of the first evaluation split, medians over seeds.",
    "Gains": "Trained alone: a student of this task alone, for as many steps as the task had here (baseline plain).",
    "Training": "Rows that are trained on, and the task’s share of steps and time.",
}


def write_tasks(folder: Path, names: Sequence[str]) -> Path:
    """Write the table of finished tasks, log it with what it says, and return the path of its JSON file.

    Args:
        folder: of the run.
        names: of the tasks, whose folders are in it.
    """
    runs = read_runs([folder / name for name in names])
    tables = tasks_tables(runs)
    page = _page(folder, runs, tables)
    write_atomically(folder / TASKS_FILE, json.dumps([_facts(run) for run in runs], indent=1) + "\n")
    write_atomically(folder / "tasks.md", tasks_markdown(tables) + "\n")
    report = write_page(page, folder / "report")
    shown = "\n\n".join(terminal_table([table.head, *table.rows]) for table in tables)
    logger.info(f"\nall tasks\n{shown}\n\nreport: {report}\n\n{verdict_lines(page.all_verdicts)}")
    return folder / TASKS_FILE


def tasks_tables(runs: Sequence[RunResults]) -> list[Table]:
    """Return scores, gains and training of several tasks, a line for each, from the results in their folders."""
    facts = [_cells(_facts(run)) for run in runs]
    made = (
        make_table(name, head, [[cells[column] for column in head] for cells in facts], _NOTES[name])
        for name, head in _TABLES.items()
    )
    return [table for table in made if table]


def tasks_markdown(tables: Sequence[Table]) -> str:
    """Return tables of several tasks as Markdown, each with its note."""
    return "\n\n".join(f"{markdown_table([one.head, *one.rows])}\n\n{one.note}" for one in tables)


def sharing_verdict(runs: Sequence[RunResults]) -> Verdict | None:
    """Return what sharing an encoder did to each task, beside a student of that task alone; None if it is not known."""
    found = {run.name: measured_gain(run, "baselines.plain") for run in runs}
    gains = {name: gain for name, gain in found.items() if gain}
    if len(gains) < len(runs):
        return None
    better = [_change(name, gain) for name, gain in gains.items() if gain["low"] > 0]
    worse = [_change(name, gain) for name, gain in gains.items() if gain["high"] < 0]
    equal = [name for name, gain in gains.items() if is_within_noise(gain)]
    parts = {"better on": better, "worse on": worse, "no difference beyond the noise on": equal}
    told = "; ".join(f"{what} {listed(tasks)}" for what, tasks in parts.items() if tasks)
    text = f"One encoder for all, beside a student of each task alone: {told}."
    return Verdict("caution" if worse else "good" if better else "note", text)


def _change(name: str, gain: Mapping[str, float]) -> str:
    return f"{name} ({points(gain['mean'], '+')} points)"


def _facts(run: RunResults) -> dict[str, Any]:
    """Return the figures of a task."""
    models = {row.role: row for row in scored_models(run)}
    scores = {role: score.median for role, row in models.items() if (score := row.score(run.metric))}
    return {
        "name": run.name,
        "task": run.task,
        "metric": run.metric,
        "metric_name": headline_name(run),
        "scores": scores,
        "retention": run.get("retention"),
        "gains": {role: row.gain for role, row in models.items() if row.gain},
        "training_rows": run.get("rows.train"),
        "steps": run.get("training.steps"),
        "seconds": run.get("training.seconds"),
        "folder": run.name,
    }


def _cells(facts: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a task's lines, by the heads of their columns."""
    scores, gains = facts["scores"], facts["gains"]
    return {
        "task": facts["name"],
        "metric": facts["metric_name"],
        "guess": decimal(scores.get("majority")),
        "teacher": decimal(scores.get("teacher")),
        "student": decimal(scores.get("student")),
        "retention": percent(facts["retention"]),
        "labels only": decimal(scores.get("no_distillation")),
        "gain over labels only, points": format_gain(gains.get("no_distillation")),
        "trained alone": decimal(scores.get("plain")),
        "gain over trained alone, points": format_gain(gains.get("plain")),
        "rows": count(facts["training_rows"]),
        "steps": count(facts["steps"]),
        "time": duration(facts["seconds"]),
    }


def _page(folder: Path, runs: Sequence[RunResults], tables: Sequence[Table]) -> Page:
    """Return the page of all tasks."""
    first, names = runs[0], [run.name for run in runs]
    layers, encoder = first.get("student.initialisation.teacher_layers"), first.get("student.encoder_parameters")
    size = f"One encoder of {encoder:,} parameters, and a head for each of {plural(len(names), 'task')}."
    start = (
        [f"The encoder starts from blocks {', '.join(map(str, layers))} of the teacher of {names[0]}."]
        if layers
        else []
    )
    reports = ", ".join(f"{name}/report/report.html" for name in names)
    remarks = [*start, f"Each task has a folder of its own, with its student and its report: {reports}."]
    sharing = sharing_verdict(runs)
    return Page(
        folder.name,
        f"several tasks at once · {plural(len(names), 'task')} · {', '.join(names)}",
        sharing.text if sharing else size,
        [size, *remarks] if sharing else remarks,
        [ReportSection("Tasks", tables=tables)],
        severity=sharing.severity if sharing else None,
        verdicts=own_verdicts(runs),
    )
