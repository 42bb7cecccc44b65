"""The plans of the tasks of a run: each an ordinary plan, with a folder within that of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.peek import peek_config
from distil_nlp.pipeline.plan import RunPlan, output_folder
from distil_nlp.pipeline.run_folder import (
    RECIPE,
    validate_folder,
)
from distil_nlp.recipe import MultitaskRecipe, Recipe, read_yaml


def plan_tasks(recipe: MultitaskRecipe, recipe_name: str) -> tuple[Path, dict[str, RunPlan]]:
    """Return the folder of a run of several tasks, and the plan of each of them; its folder is within.

    Raises:
        UserError: for settings at which a run would fail later.
    """
    folder, plans = tasks_folder(recipe, recipe_name), {}
    for name, own in recipe.tasks.items():
        with naming(name):
            plan = RunPlan.of(_recipe_of_task(own, name, folder), recipe_name)
            preflight.validate_plan(plan)
            plans[name] = plan.with_trained_teacher()
    _check_shapes(plans)
    return folder, plans


@contextmanager
def naming(task: str) -> Iterator[None]:
    """Within this context, errors say which task they are of."""
    try:
        yield
    except UserError as error:
        if error.expected is None:
            raise
        where = f"task {task}, {error.where}" if error.where else f"task {task}"
        raise UserError(where, error.expected, error.got, error.why, error.fix) from error


_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
"""Fields of a configuration that the teachers of students with one encoder have in common."""


def _check_shapes(plans: Mapping[str, RunPlan]) -> None:
    """Raise UserError for students that are made of teachers of unlike shapes; what cannot be looked at passes."""
    if next(iter(plans.values())).recipe.student.name is not None:
        return
    known: dict[str, tuple[Any, ...]] = {}
    for name, plan in plans.items():
        config = peek_config(plan.recipe.teacher.name, plan.recipe.teacher.revision)
        if config is not None:
            known[name] = tuple(getattr(config, key, None) for key in _SHAPE)
    for name, shape in known.items():
        first, expected = next(iter(known.items()))
        differing = [key for key, own, other in zip(_SHAPE, shape, expected, strict=True) if own != other]
        if differing:
            values = dict(zip(_SHAPE, zip(expected, shape, strict=True), strict=True))
            got = ", ".join(f"{key} {values[key][0]} and {values[key][1]}" for key in differing)
            raise UserError(
                "data.teacher.name",
                f"teachers of one shape for {first} and {name}",
                got,
                why="all tasks have one encoder, and their students are made of their teachers",
                fix="take teachers of one family, width and vocabulary, or name a checkpoint with student.name",
            )


def check_folder_of_tasks(folder: Path, overwrites: bool) -> None:
    """Raise UserError for a folder that holds something else than a run of several tasks.

    Args:
        overwrites: whether what is there may be moved away.
    """
    validate_folder(folder)
    file = folder / RECIPE
    if file.is_file() and not overwrites and not isinstance(read_yaml(file).get("data"), list):
        raise UserError(
            "training.output_dir",
            "a folder of its own for several tasks",
            f"{folder}, a run of one task",
            why="their files would be mixed up",
            fix="name another folder, or set run.overwrite=true",
        )


def tasks_folder(recipe: MultitaskRecipe, recipe_name: str) -> Path:
    """Return `training.output_dir`, or `runs/<recipe>-<names of the tasks>-<seed>`."""
    if recipe.first.training.get("output_dir"):
        return Path(recipe.first.training["output_dir"])
    first = output_folder(recipe.first, recipe_name).name.rpartition("-")[2]
    return Path("runs") / f"{recipe_name}-{'-'.join(recipe.tasks)}-{first}"


def _recipe_of_task(recipe: Recipe, name: str, folder: Path) -> Recipe:
    """Return the recipe of a task with its own folder and repository."""
    own = recipe.model_copy(deep=True)
    own.training["output_dir"] = str(folder / name)
    own.run.overwrite = False  # the whole folder is moved
    if own.hub.repo_id:
        own.hub.repo_id += f"-{name}"
    return own
