"""Tables and plots of runs in the docs: `python -m tests.helpers.evidence_tables` writes them from docs/evidence."""

import json
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from distil_nlp.reporting.export import export_latency_table, export_table
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.markdown import markdown_table
from distil_nlp.reporting.multitask import TASKS_FILE, tasks_markdown, tasks_tables
from distil_nlp.reporting.plots.style import Picture, style
from distil_nlp.reporting.tables import Table, quality_table
from distil_nlp.results import RunResults, read_runs
from distil_nlp.study.pictures import compute_pictures
from distil_nlp.study.table import study_heading, study_tables
from tests.helpers import ROOT

DOCS = ROOT / "docs"
EVIDENCE = DOCS / "evidence"
_BLOCK = re.compile(r"(<!-- (run|tasks|export|latency|study|plot): ([^>]*) -->\n).*?(<!-- /\2 -->\n)", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that have such tables."""
    return [page for page in sorted(DOCS.glob("*.md")) if _BLOCK.search(page.read_text())]


def with_tables(page: str) -> str:
    """Return a page whose blocks have the tables of their results.

    `<!-- run: FOLDER -->` is the table of scores that a run's own report has, `<!-- tasks: FOLDER -->` has those of a
    run of several tasks, `<!-- export: FOLDER -->` and `<!-- latency: FOLDER -->` are those of a run's export; `<!--
    study: FOLDER TASK -->` has the tables of a task that a study's page has, `<!-- plot: FOLDER TASK FILE -->` its plot
    of scores over operations. They end with `<!-- /run -->` and the like; folders are below docs/evidence.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_WRITERS[block[2]](*block[3].split())}\n\n{block[4]}", page)


def run_table(folder: str) -> str:
    """Return the scores of a run, the student's line in bold, and where it took place."""
    (run,) = read_runs([EVIDENCE / folder])
    table = quality_table(run)
    assert table is not None, folder
    return f"{markdown_table([table.head, *map(_marked, table.rows)])}\n\n{_origin(run)}"


def tasks_text(folder: str) -> str:
    """Return the tables of a run of several tasks, their notes, and where it took place."""
    names = [row["folder"] for row in json.loads((EVIDENCE / folder / TASKS_FILE).read_text())]
    runs = read_runs([EVIDENCE / folder / name for name in names])
    return f"{tasks_markdown(tasks_tables(runs))}\n\n{_place(runs[0])}"


def exported(folder: str, make: Callable[[RunResults], Table | None] = export_table) -> str:
    """Return a table of a run's export, and its note."""
    (run,) = read_runs([EVIDENCE / folder])
    table = make(run)
    assert table is not None, folder
    return f"{markdown_table([table.head, *table.rows])}\n\n{table.note}"


def study_text(folder: str, task: str) -> str:
    """Return scores, students and costs of a study's methods on a task, the best first, and where they were run."""
    rows = sorted(_rows(folder, task), key=lambda row: -row["median"])
    (run,) = read_runs([EVIDENCE / folder / task / rows[0]["run"]])
    return "\n\n".join([f"{study_heading(rows)}.", *map(markdown_table, study_tables(rows)), _origin(run)])


def study_plot(folder: str, task: str, file: str) -> str:
    """Return the reference of a plot of scores over operations, and its caption."""
    plot = compute_plot_of(folder, task)
    return f"![{plot.description}]({file})\n\n{plot.note}"


@cache
def compute_plot_of(folder: str, task: str) -> Picture:
    """Return the plot of a study's scores over operations."""
    with style():
        return compute_pictures(task, _rows(folder, task))[0]


def _rows(folder: str, task: str) -> list[dict[str, Any]]:
    return [row for row in json.loads((EVIDENCE / folder / "study.json").read_text()) if row["task"] == task]


_WRITERS: dict[str, Callable[..., str]] = {
    "run": run_table,
    "tasks": tasks_text,
    "export": exported,
    "latency": partial(exported, make=export_latency_table),
    "study": study_text,
    "plot": study_plot,
}


def _marked(row: tuple[str, ...]) -> tuple[str, ...]:
    name, score, *rest = row
    return (f"**{name}**", f"**{score}**", *rest) if name == "student" else row


def _origin(run: RunResults) -> str:
    rows = run.get("rows")
    scored = sum(rows["evaluation"].values())
    return f"{rows['train']:,} training rows, {scored:,} scored; {_place(run)}"


def _place(run: RunResults) -> str:
    environment = run.get("environment")
    versions = [f"{name} {environment['versions'][name]}" for name in ("torch", "transformers")]
    threads = plural(environment["threads"], "thread")
    return f"{environment['device']}, {threads}; {', '.join(versions)}; commit {environment['commit'][:7]}."


if __name__ == "__main__":
    for path in pages():
        text = path.read_text()
        path.write_text(with_tables(text))
        for block in _BLOCK.finditer(text):
            if block[2] == "plot":
                *study, file = block[3].split()
                (DOCS / file).write_bytes(compute_plot_of(*study).png)
