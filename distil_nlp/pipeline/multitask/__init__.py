"""Several tasks at once: one encoder, a head for each task, and an ordinary run's folder for each task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distil_nlp.pipeline.distill import distil
from distil_nlp.pipeline.dry_run import Line, dry_run
from distil_nlp.pipeline.multitask.run import distil_tasks, dry_run_tasks
from distil_nlp.recipe import MultitaskRecipe, Recipe

__all__ = ["distil_any", "dry_run_any"]


def distil_any(recipe: Recipe | MultitaskRecipe, recipe_name: str) -> Path:
    """Run a recipe of one task or of several; return the path of its results, or of the table of all tasks."""
    return distil(recipe, recipe_name) if isinstance(recipe, Recipe) else distil_tasks(recipe, recipe_name)


def dry_run_any(recipe: Recipe | MultitaskRecipe, recipe_name: str) -> Iterator[Line]:
    """Yield what a run of one task or of several would do, line by line; see `dry_run`."""
    return dry_run(recipe, recipe_name) if isinstance(recipe, Recipe) else dry_run_tasks(recipe, recipe_name)
