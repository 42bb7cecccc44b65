"""Running of a study: one run for each method and task, and a table of all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError, listed
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import Recipe, load_recipe, read_yaml
from distil_nlp.recipe.validate import validate_no_unused_keys
from distil_nlp.reporting.markdown import markdown_table, terminal_table
from distil_nlp.results import has_results
from distil_nlp.study.page import write_study_page
from distil_nlp.study.plan import StudyPlan, read_plan, recipe_of, run_overrides
from distil_nlp.study.table import MEMORY_FILE, method_table, reference_scores, study_rows
from distil_nlp.training.preemption import Preempted, on_sigterm
from distil_nlp.utils.files import load_json, read_json, write_atomically
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.settings import describe_changes

logger = get_logger(__name__)

_RUN = "import sys; from distil_nlp.cli import distill; sys.exit(distill())"


def run_study(
    path: Path,
    folder: Path,
    overrides: Sequence[str],
    methods: Sequence[str] | None = None,
) -> Path:
    """Run what is not finished yet, one method and task after the other, and return the path of the table.

    Args:
        path: the study's file.
        folder: the folder of all runs and of the table.
        overrides: `section.key=value` for all runs.
        methods: names of the methods to run; all if None. The table has every finished run.

    Raises:
        UserError: if the plan or a recipe that it makes is wrong; if there is no such method; if the folder holds runs
            of other settings; if a run fails.
        Preempted: if this process or a run received SIGTERM.
    """
    plan = read_plan(path)
    unknown = [name for name in methods or () if name not in plan.methods]
    if unknown:
        raise UserError(
            "--methods",
            f"some of {listed(plan.methods, 50)}",
            listed(unknown),
            why=f"{path} has no such method",
            fix="choose from the list, or add it there",
        )
    with claimed(folder):
        return _run_all(plan, path, folder, overrides, methods)


def _run_all(
    plan: StudyPlan, path: Path, folder: Path, overrides: Sequence[str], methods: Sequence[str] | None
) -> Path:
    """Run what is not finished yet in a folder that is held; return the path of the table."""
    tree = read_yaml(path.parent / plan.recipe) | {"objective": plan.always}
    recipes = {name: recipe_of(plan, path, name, folder) for name in plan.methods}
    runs = [(task, name) for task in plan.tasks or [] for name in plan.methods]
    own = {(task, name): run_overrides(plan, task, folder / task / name, overrides) for task, name in runs}
    for task, name in runs:
        _validate(load_recipe(recipes[name], own[task, name]), name, folder / task / name)
    _claim(folder, {"seeds": plan.seeds, "recipe": tree, "overrides": sorted(overrides)})
    runs = [(task, name) for task, name in runs if methods is None or name in methods]
    for number, (task, name) in enumerate(runs, 1):
        if not has_results(folder / task / name):
            logger.info(f"run {number} of {len(runs)}: {name} on {task}")
            _run([str(recipes[name]), *own[task, name]], folder / task / name)
            _write(plan, folder)
    logger.info(_write(plan, folder))
    logger.info(f"report: {folder / 'report' / 'report.html'}")
    return folder / "study.md"


def _validate(recipe: Recipe, method: str, run_folder: Path) -> None:
    """Raise UserError for mistakes that would stop the run, and for a finished run of another objective."""
    plan = RunPlan.of(recipe, method)
    validate_no_unused_keys(recipe, plan.task.kind)
    results = read_json(run_folder / "results.json", "the run is taken up again", recipe=dict)
    if results is not None:
        finished = results.get("recipe", {}).get("objective") or {}
        planned = recipe.objective.model_dump(mode="json")
        if {k: v for k, v in finished.items() if v} != {k: v for k, v in planned.items() if v}:
            raise UserError(
                f"methods.{method}",
                f"the terms that {run_folder} was made with",
                "others",
                why="its row would have another method's name",
                fix="give the method another name, or remove that folder",
            )


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings that all runs of a folder share, or raise UserError if the folder has others.

    Methods and tasks are not among them and may be added.
    """
    file = folder / "settings.json"
    if file.is_file() and (previous := _saved_settings(file)) != settings:
        different = describe_changes(previous, settings)
        raise UserError(
            "--output",
            f"the settings of the runs in {folder}",
            f"others: {'; '.join(different)}",
            why="runs of different settings would be in one table",
            fix="name another folder, or give the same",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(settings, indent=1) + "\n")


def _saved_settings(file: Path) -> dict[str, Any]:
    try:
        return load_json(file)
    except (OSError, ValueError) as error:
        raise UserError(
            "--output",
            f"the settings of the runs in {file}",
            str(error),
            why="it is unknown whether the runs beside it have these settings",
            fix="delete it if they have, or name another folder",
        ) from error


def _run(arguments: Sequence[str], run_folder: Path) -> None:
    """Run `distill` in a process of its own, and keep its peak memory beside the results.

    SIGTERM is forwarded to the process, which is waited for.
    """
    stopped = False

    def forward() -> None:
        nonlocal stopped
        stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)

    dashboards = {"WANDB_PROJECT": run_folder.parents[1].name} | os.environ  # all runs of a study in one project
    process = subprocess.Popen([sys.executable, "-c", _RUN, *arguments], env=dashboards)
    with on_sigterm(forward):
        _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if stopped or code in (128 + signal.SIGTERM, -signal.SIGTERM):
        raise Preempted(
            f"told to stop (SIGTERM) / what {run_folder} has saved is kept / the same command carries on from there"
        )
    if code:
        raise UserError(
            None,
            f"{run_folder} to finish",
            f"exit code {code}",
            why="see above",
            fix="the same command carries on from there",
        )
    kib = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    write_atomically(run_folder / MEMORY_FILE, f"{kib / 1024:.0f}\n")


def _write(plan: StudyPlan, folder: Path) -> str:
    """Write `study.json` and `study.md` of the finished runs, and return the tables for a terminal."""
    rows = list(study_rows(plan, folder))
    write_atomically(folder / "study.json", json.dumps(rows, indent=1) + "\n")
    by_task = {task: [row for row in rows if row["task"] == task] for task in plan.tasks or []}
    by_task = {task: sorted(part, key=lambda row: -row["median"]) for task, part in by_task.items() if part}
    markdown, terminal = [], []
    for task, of_task in by_task.items():
        table, first = method_table(of_task), of_task[0]
        heading = f"{task.upper()}, {first['metric']} after {first['steps']} steps: {reference_scores(first)}"
        markdown.append(f"{heading}\n\n{markdown_table(table)}\n")
        terminal.append(f"{heading}\n{terminal_table(table)}")
    write_atomically(folder / "study.md", "\n".join(markdown))
    if by_task:
        write_study_page(folder.name, by_task, folder / "report")
    return "\n\n".join(terminal)
