"""The steps that all rows of a task take, which runs of a share of them take too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.plan import RunPlan, sources
from distil_nlp.pipeline.planning.batches import plan_batches
from distil_nlp.recipe import Recipe, load_recipe
from distil_nlp.study.cells import cell_at, run_overrides
from distil_nlp.study.plan import SHARE_KEYS, StudyPlan
from distil_nlp.utils.hub_connection import use_cache_without_network


def fill_in_steps(plan: StudyPlan, file: Path, folder: Path, overrides: Sequence[str]) -> None:
    """Load the rows of each task and note the steps that all of them take, where the plan needs that.

    Args:
        plan: the study's.
        file: the recipe of one of its methods.
        folder: of its runs.
        overrides: `section.key=value` for all runs.
    """
    if "steps" not in plan.equal:
        return
    for task in plan.tasks or []:
        cell = cell_at(plan, task, plan.all_methods[0], [0])
        own = run_overrides(plan, cell, cell.folder(folder), overrides)
        plan.all_steps[task] = _steps_of(load_recipe(file, [*own, *(f"{key}=1" for key in SHARE_KEYS)]))


def _steps_of(recipe: Recipe) -> int:
    """Return the optimiser steps of a recipe's student."""
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, "steps")
    data = load_data(plan)[1]
    return plan_batches(data.split.train, plan.args, data.group_size, recipe.data.max_length).steps
