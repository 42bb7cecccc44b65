"""The plan of a study: what all runs that it would make will take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.plan_recipe import plan_recipe
from distil_nlp.pipeline.planning.stage import DiskUse, PlannedStage, RunCosts
from distil_nlp.recipe import load_recipe
from distil_nlp.results import has_results
from distil_nlp.study.cells import cells_of, run_overrides
from distil_nlp.study.lengths import fill_in_steps
from distil_nlp.study.plan import read_plan, recipe_of
from distil_nlp.study.search_space import SearchSettings

_OF_TRIAL = ("start", "student", "scoring")
"""Kinds of the stages that a trial has."""


def plan_study(
    path: Path,
    folder: Path,
    overrides: Sequence[str],
    basis: Basis,
    begin: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RunCosts:
    """Return what all runs of a study will take; teachers that several of them share are counted once.

    Args:
        path: the study's file.
        folder: of its runs; those that are finished there take no time.
        overrides: `section.key=value` for all runs.
        basis: the machine that it is for.
        begin: when loading began, by `time.perf_counter`; now if None.
        say: told what is going on.

    Raises:
        UserError: if the plan or a recipe that it makes is wrong.
    """
    plan, known, cells = read_plan(path, overrides), set[Path](), []
    with tempfile.TemporaryDirectory() as temporary:
        files = {name: recipe_of(plan, path, name, Path(temporary)) for name in plan.all_methods}
        fill_in_steps(plan, files[plan.all_methods[0]], folder, overrides)
        for cell in cells_of(plan):
            recipe = load_recipe(files[cell.method], run_overrides(plan, cell, cell.folder(folder), overrides))
            title = f"{cell.label} on {cell.task}"
            say(title)
            costs = plan_recipe(recipe, cell.method, basis, known=known, begin=begin, say=say)
            cells.append((title, costs, has_results(cell.folder(folder))))
            if plan.search is not None and cell.method in plan.methods:
                cells.append((f"trials of {title}", _trials(costs, plan.search), False))
            begin = None
    return _together(cells)


def _trials(costs: RunCosts, search: SearchSettings) -> RunCosts:
    """Return the costs of a search's trials, each a run of the method with one student, and of a teacher for them.

    The teacher is fine-tuned without the rows that trials are valued on.
    """
    own = [stage for stage in costs.stages if stage.kind in _OF_TRIAL]
    whole = sum(stage.seconds / stage.times for stage in own)
    runs = search.runs or max(round((search.hours or 0) * 3600 / max(whole, 1e-9)), 1)
    teachers = [stage for stage in costs.stages if stage.kind == "teacher"]
    return replace(costs, stages=[*teachers, *(_repeated(stage, runs) for stage in own)])


def _repeated(stage: PlannedStage, times: int) -> PlannedStage:
    """Return a stage that is done another number of times."""
    factor = times / stage.times
    tokens = None if stage.tokens is None else round(stage.tokens * factor)
    flops = None if stage.flops is None else stage.flops * factor
    return replace(stage, times=times, seconds=stage.seconds * factor, tokens=tokens, flops=flops)


def _together(cells: Sequence[tuple[str, RunCosts, bool]]) -> RunCosts:
    """Return the costs of all cells, each given as (title, costs, whether it is finished)."""
    largest = max((costs for _, costs, _ in cells), key=lambda one: one.memory.total if one.memory else 0)
    disk = DiskUse(
        max(costs.disk.checkpoints for _, costs, _ in cells),
        sum(costs.disk.models for _, costs, _ in cells),
        sum(costs.disk.caches for _, costs, _ in cells),
    )
    stages = [stage for cell in cells for stage in _stages(*cell)]
    advice = list(dict.fromkeys(text for _, costs, _ in cells for text in costs.advice))
    return replace(largest, stages=stages, disk=disk, advice=advice)


def _stages(title: str, costs: RunCosts, is_finished: bool) -> Iterator[PlannedStage]:
    """Yield the stages of a cell, with its title."""
    for stage in costs.stages:
        run = f"{title}, {stage.run}" if stage.run else title
        yield replace(stage, run=run, is_done=stage.is_done or is_finished, seconds=stage.seconds * (not is_finished))
