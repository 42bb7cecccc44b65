"""Files of a study: `study.json`, `study.md` and the report, of all runs that are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from distil_nlp.reporting.markdown import markdown_table, terminal_table
from distil_nlp.reporting.report.pages import ReportSection
from distil_nlp.study.page import write_study_page
from distil_nlp.study.plan import StudyPlan
from distil_nlp.study.search import read_searches
from distil_nlp.study.searched import search_sections
from distil_nlp.study.table import add_best, study_heading, study_rows, study_tables
from distil_nlp.utils.files import write_atomically


def write_study(plan: StudyPlan, folder: Path, has_page: bool = True) -> str:
    """Write `study.json`, `study.md` and the report of the finished runs, and return the tables for a terminal.

    Args:
        plan: the study's.
        folder: of its runs.
        has_page: whether the report is written, which takes seconds.
    """
    rows = study_rows(plan, folder)
    write_atomically(folder / "study.json", json.dumps(rows, indent=1) + "\n")
    by_task = {task: [row for row in rows if row["task"] == task] for task in plan.tasks or []}
    by_task = {task: sorted(part, key=lambda row: -row["median"]) for task, part in by_task.items() if part}
    markdown, terminal = [], []
    for task, of_task in by_task.items():
        heading, tables = f"{task.upper()}, {study_heading(of_task)}", study_tables(of_task)
        markdown.append("\n\n".join([heading, *map(markdown_table, tables)]) + "\n")
        terminal.append(f"{heading}\n" + "\n\n".join(map(terminal_table, tables)))
    write_atomically(folder / "study.md", "\n".join(markdown))
    if by_task and has_page:
        for of_task in by_task.values():
            add_best(of_task, folder)
        write_study_page(folder.name, by_task, folder / "report", plan.axes, _searched(plan, folder))
    return "\n\n".join(terminal)


def _searched(plan: StudyPlan, folder: Path) -> Callable[[str], Sequence[ReportSection]]:
    """Return what makes the sections of a task's searches."""
    if plan.search is None:
        return lambda task: ()
    logs = {name for name, span in plan.search.ranges.items() if span.log}
    return partial(search_sections, read_searches(folder), axes=plan.search.axes, logs=logs)
