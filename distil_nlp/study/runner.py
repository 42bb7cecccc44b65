"""Running of a study: one run for each cell, and a table of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError, listed
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import Recipe, complete, load_recipe, read_yaml
from distil_nlp.recipe.validate import validate_no_unused_keys
from distil_nlp.reporting.formatting import plural
from distil_nlp.results import has_results, read_results
from distil_nlp.study.cells import Cell, cells_of, run_overrides
from distil_nlp.study.lengths import fill_in_steps
from distil_nlp.study.output import write_study
from distil_nlp.study.plan import StudyPlan, read_plan, recipe_of
from distil_nlp.study.prepare import PREPARE, teacher_key
from distil_nlp.study.processes import StudyJob, log_file, run_jobs
from distil_nlp.study.tuning import Trials, read_found, run_searches
from distil_nlp.utils.files import load_json, read_json, write_atomically
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.settings import EXTENDING_KEYS, IRRELEVANT_KEYS, asks_for_more, describe_changes, flatten

logger = get_logger(__name__)

_SETTINGS = "settings.json"
"""The file of what all runs of a folder share."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell with the recipe of its run.

    Attributes:
        cell: the cell.
        folder: of its run.
        arguments: the recipe's file and the overrides, as on a command line.
        recipe: what they make.
    """

    cell: Cell
    folder: Path
    arguments: list[str]
    recipe: Recipe

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.cell.label} on {self.cell.task}"

    def is_finished(self) -> bool:
        """Return whether its run has all seeds and measurements that are asked for."""
        if not has_results(self.folder):
            return False
        scored = complete(read_results(self.folder / "results.json")["recipe"], type(self.recipe))
        return not asks_for_more(scored, self.recipe.model_dump(mode="json"))


def run_study(
    path: Path,
    folder: Path,
    overrides: Sequence[str],
    methods: Sequence[str] | None = None,
    at_once: int = 1,
) -> Path:
    """Run the cells that are not finished yet, and return the path of the table.

    Args:
        path: the study's file.
        folder: the folder of all runs and of the table.
        overrides: `section.key=value` for all runs.
        methods: names of the methods to run; all if None. The table has every finished run.
        at_once: runs at a time; with several, each prints into a log of its own.

    Raises:
        UserError: if the plan or a recipe that it makes is wrong; if there is no such method; if the folder holds runs
            of other settings; if a run failed, once all others have ended.
        Preempted: if this process or a run received SIGTERM.
    """
    plan = read_plan(path, overrides)
    read_found(plan, folder)
    unknown = [name for name in methods or () if name not in plan.all_methods]
    if unknown:
        raise UserError(
            "--methods",
            f"some of {listed(plan.all_methods, 50)}",
            listed(unknown),
            why=f"{path} has no such method",
            fix="choose from the list, or add it there",
        )
    with claimed(folder):
        settings = _settings(plan, path, overrides)
        _check_settings(folder, settings)
        planned = plan_cells(plan, path, folder, overrides)
        write_atomically(folder / _SETTINGS, json.dumps(settings, indent=1) + "\n")
        failed: dict[str, str] = {}
        if plan.search is not None:
            files = {name: recipe_of(plan, path, name, folder) for name in plan.methods}
            trials = Trials(plan, folder, files, overrides, at_once)
            failed = run_searches(trials, methods or list(plan.methods))
            planned = plan_cells(plan, path, folder, overrides)
        chosen = [one for one in planned if methods is None or one.cell.method in methods]
        _run_all(plan, folder, chosen, at_once, failed)
    return folder / "study.md"


def plan_cells(plan: StudyPlan, path: Path, folder: Path, overrides: Sequence[str]) -> list[PlannedCell]:
    """Return the cells of a study with their recipes, all of them checked.

    Raises:
        UserError: for mistakes that would stop a run.
    """
    files = {name: recipe_of(plan, path, name, folder) for name in plan.all_methods}
    fill_in_steps(plan, files[plan.all_methods[0]], folder, overrides)
    planned = []
    for cell in cells_of(plan):
        file, place = files[cell.method], cell.folder(folder)
        own = run_overrides(plan, cell, place, overrides)
        planned.append(PlannedCell(cell, place, [str(file), *own], load_recipe(file, own)))
        _validate(planned[-1].recipe, cell.method, place)
    return planned


def _settings(plan: StudyPlan, path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return what all runs of a folder share."""
    tree = read_yaml(plan.recipe_file(path)) | ({} if plan.always is None else {"objective": plan.always})
    searched = (
        {} if plan.search is None else {"search": plan.search.model_dump(mode="json", include={"space", "metric"})}
    )
    return {"seeds": plan.seeds, "recipe": tree, "overrides": sorted(overrides), **searched}


def _binding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that make a run another one, without those that add to it, or to the study."""
    free = (*IRRELEVANT_KEYS, *EXTENDING_KEYS, "data.task")
    recipe = {key: value for key, value in flatten(settings.get("recipe") or {}).items() if not key.startswith(free)}
    overrides = [one for one in settings.get("overrides") or [] if not one.strip().startswith(free)]
    return {**settings, "seeds": None, "recipe": recipe, "overrides": overrides}


def _run_all(
    plan: StudyPlan, folder: Path, planned: Sequence[PlannedCell], at_once: int, trials: Mapping[str, str]
) -> None:
    """Run what is not finished yet, or lacks seeds or measurements, and write the table after each run.

    Args:
        plan: the study's.
        folder: of its runs.
        planned: the cells.
        at_once: runs at a time.
        trials: trials of a search that failed, with the reason.

    Raises:
        UserError: for runs that failed, trials among them.
    """
    missing = [one for one in planned if not one.is_finished()]
    numbers = {str(one.folder): f"run {i} of {len(planned)}" for i, one in enumerate(planned, 1)}
    failed = _prepare(missing, folder, at_once) if at_once > 1 else {}
    jobs = [_job(one, folder, at_once) for one in missing if teacher_key(one.recipe) not in failed]
    codes = dict(trials)
    for job, code in run_jobs(jobs, at_once, lambda job: logger.info(f"{numbers[str(job.folder)]}: {job.name}")):
        if code:
            codes[job.name] = job.failure(code)
        if at_once > 1:
            logger.info(f"{job.name}: {codes.get(job.name, 'done')}")
        write_study(plan, folder, has_page=False)
    logger.info(write_study(plan, folder))
    logger.info(f"report: {folder / 'report' / 'report.html'}")
    codes |= {one.title: failed[key] for one in missing if (key := teacher_key(one.recipe)) in failed}
    if codes:
        raise UserError(
            None,
            f"all {plural(len(missing) + len(trials), 'run')} to finish" if missing else "all trials to finish",
            f"{len(codes)} that failed: " + "; ".join(f"{name} ({reason})" for name, reason in codes.items()),
            why="the table is without them",
            fix="the same command carries on from there, and repeats nothing that is finished",
        )


def _job(planned: PlannedCell, folder: Path, at_once: int) -> StudyJob:
    log = log_file(folder, planned.cell.task, planned.cell.name, at_once)
    return StudyJob(planned.title, planned.arguments, planned.folder, log)


def _prepare(missing: Sequence[PlannedCell], folder: Path, at_once: int) -> dict[str, str]:
    """Fine-tune each teacher of some runs, with all cores; return the keys of those that failed, with the reason."""
    first = {teacher_key(one.recipe): one for one in reversed(missing)}
    if len(first) == len(missing):
        return {}  # nothing is shared
    failed = {}
    for number, (key, one) in enumerate(reversed(first.items()), 1):
        log = folder / "logs" / f"teacher-{number}.log"
        name = f"teacher {number} of {len(first)} and its rows"
        job = StudyJob(name, one.arguments, folder / "teachers" / str(number), log, PREPARE)
        for _, code in run_jobs([job], 1, lambda job: logger.info(f"{job.name}: prepared for all runs first")):
            if code:
                failed[key] = f"its teacher failed with exit code {code}, see {log}"
    return failed


def _validate(recipe: Recipe, method: str, run_folder: Path) -> None:
    """Raise UserError for mistakes that would stop the run, and for a finished run of another recipe."""
    plan = RunPlan.of(recipe, method)
    validate_no_unused_keys(recipe, plan.task.kind)
    results = read_json(run_folder / "results.json", "the run is taken up again", recipe=dict)
    if results is None:
        return
    finished, planned = complete(results["recipe"], type(recipe)), plan.recipe.model_dump(mode="json")
    if changes := describe_changes(finished, planned, IRRELEVANT_KEYS + EXTENDING_KEYS):
        raise UserError(
            f"methods.{method}",
            f"the settings that {run_folder} was made with",
            f"others: {listed(changes, 5)}",
            why="its row would have another method's name",
            fix="give the method another name, or remove that folder",
        )


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raise UserError for a folder whose runs share other settings, or have more seeds.

    Methods, points, tasks, seeds and measurements may be added.
    """
    file = folder / _SETTINGS
    if not file.is_file():
        return
    previous = _saved_settings(file)
    different = describe_changes(_binding(previous), _binding(settings))
    if settings["seeds"] < previous.get("seeds", 0):
        different.append(f"seeds was {previous['seeds']}, is {settings['seeds']}")
    if different:
        raise UserError(
            "--output",
            f"the settings of the runs in {folder}",
            f"others: {'; '.join(different)}",
            why="runs of different settings would be in one table",
            fix="name another folder, or give the same",
        )


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
