"""A study: the same distillation with one objective after another, each a run of its own, and a table of them all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import Recipe, load_recipe
from distil_nlp.recipe.load import read_yaml
from distil_nlp.recipe.validate import validate_no_unused_keys
from distil_nlp.reporting.markdown import aligned_table, markdown_table
from distil_nlp.study.plan import StudyPlan, read_plan, recipe_of
from distil_nlp.study.table import _MEMORY, _beside, _rows, _table
from distil_nlp.training.preemption import Preempted, on_sigterm
from distil_nlp.utils.files import write_atomically

_RUN = "import sys; from distil_nlp.cli import distill; sys.exit(distill())"


def run_study(
    path: Path,
    folder: Path,
    overrides: Sequence[str],
    say: Callable[[str], None],
    methods: Sequence[str] | None = None,
) -> Path:
    """Runs what is not finished yet, one method and task after the other; returns the path of the table.

    Args:
        methods: to run, by name; all if None. The table has whatever is finished.

    Raises:
        UserError: if the plan or a recipe that it makes is wrong; if there is no such method; if the folder holds runs
            of other settings; if a run fails.
        Preempted: if it was told to stop (SIGTERM), or a run was.
    """
    plan = read_plan(path)
    unknown = [name for name in methods or () if name not in plan.methods]
    if unknown:
        raise UserError(
            f"--methods: expected some of {', '.join(plan.methods)} / got {', '.join(unknown)} / {path} has no such "
            "method / choose from the list, or add it there"
        )
    tree = read_yaml(path.parent / plan.recipe) | {"objective": plan.always}
    recipes = {name: recipe_of(plan, path, name, folder) for name in plan.methods}
    runs = [(task, name) for task in plan.tasks for name in plan.methods]
    own = {
        (task, name): [
            *overrides,
            f"data.task={task}",
            f"evaluation.seeds={plan.seeds}",
            f"training.output_dir={folder / task / name}",
        ]
        for task, name in runs
    }
    for task, name in runs:
        _check(load_recipe(recipes[name], own[task, name]), name, folder / task / name)
    _claim(folder, {"seeds": plan.seeds, "recipe": tree, "overrides": sorted(overrides)})
    runs = [(task, name) for task, name in runs if methods is None or name in methods]
    for number, (task, name) in enumerate(runs, 1):
        if not (folder / task / name / "results.json").is_file():
            say(f"run {number} of {len(runs)}: {name} on {task}")
            _run([str(recipes[name]), *own[task, name]], folder / task / name)
            _write(plan, folder)
    say(_write(plan, folder))
    return folder / "study.md"


def _check(recipe: Recipe, method: str, place: Path) -> None:
    """What would stop a run once it is started, and whether a finished one had another objective."""
    plan = RunPlan.of(recipe, method)
    validate_no_unused_keys(recipe, plan.task.kind)
    results = place / "results.json"
    if results.is_file():
        was, wanted = json.loads(results.read_text())["recipe"]["objective"], recipe.objective.model_dump(mode="json")
        if {k: v for k, v in was.items() if v} != {k: v for k, v in wanted.items() if v}:
            raise UserError(
                f"methods.{method}: expected the terms that {place} was made with / got others / its row would "
                "stand under another's name / give the method another name, or remove that folder"
            )


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """What all runs of a folder share, so that they can be compared; methods and tasks may be added."""
    file = folder / "settings.json"
    if file.is_file() and (was := json.loads(file.read_text())) != settings:
        different = [name for name in settings if was.get(name) != settings[name]]
        raise UserError(
            f"--output: expected the settings of the runs in {folder} / got other {', '.join(different)} than "
            f"{[was.get(name) for name in different]} / runs of unlike steps would stand in one table / name another "
            "folder, or give the same"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(settings, indent=1) + "\n")


def _run(arguments: Sequence[str], place: Path) -> None:
    """In a process of its own, whose largest memory is kept beside the results. SIGTERM is handed on to it, and it is
    waited for."""
    told = False

    def hand_on() -> None:
        nonlocal told
        told = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)

    process = subprocess.Popen([sys.executable, "-c", _RUN, *arguments])
    with on_sigterm(hand_on):
        _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if told or code in (128 + signal.SIGTERM, -signal.SIGTERM):
        raise Preempted(
            f"told to stop (SIGTERM) / what {place} has saved is kept / the same command carries on from there"
        )
    if code:
        raise UserError(
            f"expected {place} to finish / got exit code {code} / see above / the same command carries on from there"
        )
    kib = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    write_atomically(place / _MEMORY, f"{kib / 1024:.0f}\n")


def _write(plan: StudyPlan, folder: Path) -> str:
    """`study.json` and `study.md`, of the runs that are finished; the tables for a terminal."""
    rows = list(_rows(plan, folder))
    write_atomically(folder / "study.json", json.dumps(rows, indent=1) + "\n")
    told, shown = [], []
    for task in plan.tasks:
        found = [row for row in rows if row["task"] == task]
        if found:
            table = _table(sorted(found, key=lambda row: -row["median"]))
            heading = f"{task.upper()}, {found[0]['metric']} after {found[0]['steps']} steps: {_beside(found[0])}"
            told.append(f"{heading}\n\n{markdown_table(table)}\n")
            shown.append(f"{heading}\n{aligned_table(table)}")
    write_atomically(folder / "study.md", "\n".join(told))
    return "\n\n".join(shown)
