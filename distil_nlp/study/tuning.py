"""The searches of a study: one for each task and method, before the methods are run with what was found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import task_evaluator
from distil_nlp.evaluation.metrics import headline_metric
from distil_nlp.pipeline.builders import is_lower_better
from distil_nlp.pipeline.plan import RunPlan, student_seeds
from distil_nlp.recipe import Recipe, load_recipe
from distil_nlp.reporting.formatting import decimal, plural
from distil_nlp.results import get_nested
from distil_nlp.study.cells import Cell, is_lost, overrides_of, run_overrides
from distil_nlp.study.plan import StudyPlan
from distil_nlp.study.processes import StudyJob, log_file, run_jobs
from distil_nlp.study.search import SEARCHES, MethodSearch, best_trial, read_searches
from distil_nlp.study.search_space import SearchSettings
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.settings import EXTENDING_KEYS, IRRELEVANT_KEYS, flatten

logger = get_logger(__name__)

_SEEDS_APART = 1_000
"""What the seed of all trials is above the first of the runs that follow, however many these are."""


@dataclass(frozen=True)
class Trials:
    """What the trials of a study have in common.

    Attributes:
        plan: the study's.
        folder: of its runs.
        files: method → the recipe of its runs.
        overrides: `section.key=value` for all runs.
        at_once: runs at a time.
    """

    plan: StudyPlan
    folder: Path
    files: Mapping[str, Path]
    overrides: Sequence[str]
    at_once: int

    def arguments(self, cell: Cell, run_folder: Path) -> list[str]:
        """Return the recipe and the overrides of a trial: one student of its own seed, with rows to choose by."""
        file, own = self.files[cell.method], run_overrides(self.plan, cell, run_folder, self.overrides)
        recipe = load_recipe(file, own)
        own += ["evaluation.seeds=1", f"training.seed={student_seeds(recipe)[0] + _SEEDS_APART}"]
        every = recipe.training.get("eval_strategy", "no")
        every = "epoch" if every == "no" else every
        own += [f"training.eval_strategy={every}"]
        if self.plan.search and self.plan.search.prune:
            own += [f"training.save_strategy={every}", "training.save_total_limit=1"]
            own += [f"training.save_steps={recipe.training['eval_steps']}"] if "eval_steps" in recipe.training else []
        return [str(file), *own]

    def job(self, task: str, method: str, settings: Mapping[str, Any]) -> StudyJob:
        """Return the run of a trial.

        Raises:
            UserError: if its values make no recipe.
        """
        cell = Cell(task, method, {}, settings)
        place = self.folder / task / f"trial_{cell.name}"
        file, *own = self.arguments(cell, place)
        RunPlan.of(load_recipe(file, own), method)
        shown = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())
        log = log_file(self.folder, task, place.name, self.at_once)
        return StudyJob(f"{method} with {shown}, on {task}", [file, *own], place, log)

    def search(self, task: str, method: str) -> MethodSearch | None:
        """Return the search of a method on a task; None if no key of the space means anything to the method."""
        settings = self.plan.search
        assert settings is not None
        names = [
            name for name in settings.space if any(not is_lost(self.plan, method, k) for k in _keys(settings, name))
        ]
        if not names:
            return None
        recipe = load_recipe(
            self.files[method], [*overrides_of(self.plan, method, self.overrides), f"data.task={task}"]
        )
        metric = settings.metric or _metric_of(recipe)
        identity = hashlib.sha256(f"{task}/{method}".encode()).digest()
        return MethodSearch(
            settings=settings,
            task=task,
            method=method,
            keys=names,
            journal=self.folder / "search.journal",
            job_of=partial(self.job, task, method),
            metric=metric,
            direction="minimize" if is_lower_better(metric, recipe) else "maximize",
            start=start_of(settings, recipe),
            seed=int.from_bytes(identity[:4], "big"),
            recipe=_settled(settings, recipe, names),
            at_once=self.at_once,
        )


def run_searches(trials: Trials, methods: Sequence[str]) -> dict[str, str]:
    """Run the trials that the budget still has, and note in the plan what was found; return trials that failed.

    Args:
        trials: what those of the study have in common.
        methods: those that are searched.

    Raises:
        UserError: if all trials of a method failed.
        Preempted: if this process or a trial received SIGTERM.
    """
    plan, folder, failures = trials.plan, trials.folder, dict[str, str]()
    for task, method in _pairs(plan, methods):
        search = trials.search(task, method)
        if search is None:
            continue
        budget = _budget(search.settings)
        logger.info(f"searching {method} on {task}: {budget}, valued by {search.metric} of rows held back")
        for job, code in run_jobs(search.jobs(), trials.at_once, _say, search.should_stop):
            search.record(job, code)
            _keep(folder, search)
        _keep(folder, search)
        failures |= search.failures
        if search.found is None:
            reason = next(iter(search.failures.values()), "none was run")
            raise UserError("search", f"a trial of {method} on {task} that ends", "none", why=f"the first: {reason}")
        logger.info(_told(search))
    read_found(plan, folder)
    return failures


def read_found(plan: StudyPlan, folder: Path) -> None:
    """Note in the plan what the searches of its folder have found so far."""
    for one in read_searches(folder):
        if one["found"] is not None and one["task"] in (plan.tasks or []) and one["method"] in plan.methods:
            plan.found[one["task"], one["method"]] = one["found"]


def start_of(settings: SearchSettings, recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's own values of a space, as far as the space has them."""
    tree = recipe.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name, key in ((name, _keys(settings, name)[0]) for name in settings.space):
        value = get_nested(tree, *key.split("."))
        try:
            settings.parameter(name, value)
        except UserError:
            continue
        found[name] = value
    return found


def _settled(settings: SearchSettings, recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings that all trials share: those that make a run what it is, but for the keys of the space."""
    searched = tuple(key for name in names for key in _keys(settings, name))
    free = (*IRRELEVANT_KEYS, *EXTENDING_KEYS, *searched)
    return {key: value for key, value in flatten(recipe.model_dump(mode="json")).items() if not key.startswith(free)}


def _keys(settings: SearchSettings, name: str) -> list[str]:
    return [name] if name in settings.ranges else [*settings.choices[name].keys]


def _metric_of(recipe: Recipe) -> str:
    """Return the task's headline metric, or the labels' loss where the evaluations while training have no metric."""
    task = recipe.data.task
    return headline_metric(task) if task_evaluator(task).trainer_metrics(task) else "hard_label"


def _pairs(plan: StudyPlan, methods: Sequence[str]) -> Iterator[tuple[str, str]]:
    for task in plan.tasks or []:
        for method in methods:
            if method in plan.methods:
                yield task, method


def _budget(settings: SearchSettings) -> str:
    return plural(settings.runs, "trial") if settings.runs else f"{settings.hours:g} hours"


def _say(job: StudyJob) -> None:
    logger.info(f"trial: {job.name}")


def _told(search: MethodSearch) -> str:
    found = search.to_dict()
    best, ended = best_trial(found), plural(len(found["trials"]), "trial")
    shown = ", ".join(f"{key} {value}" for key, value in best["point"].items())
    return f"best of {ended} of {search.method} on {search.task}: {shown} ({decimal(best['value'])})"


def _keep(folder: Path, search: MethodSearch) -> None:
    """Write what a search has so far beside the others."""
    others = [one for one in read_searches(folder) if (one["task"], one["method"]) != (search.task, search.method)]
    write_atomically(folder / SEARCHES, json.dumps([*others, search.to_dict()], indent=1) + "\n")
