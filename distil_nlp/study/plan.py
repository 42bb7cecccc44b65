"""The plan of a study, and the recipe of each of its methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from distil_nlp.errors import UserError
from distil_nlp.recipe.load import dump_yaml, read_yaml
from distil_nlp.recipe.plugins import locate_plugins
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.names import check_path_names

BASELINE_METHOD = "plain"
"""The method that adds no terms; the cost of the others is given relative to it."""


class StudyPlan(BaseModel):
    """The contents of a study's file.

    Attributes:
        recipe: path of the recipe of all runs, whose objective is replaced; relative to the study's file.
        tasks: tasks that every method is run on.
        seeds: students of each run.
        always: terms of every run.
        methods: name → terms that are added, or given other options. Names are those of folders.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    tasks: list[str] = Field(min_length=1)
    seeds: PositiveInt = 3
    always: dict[str, dict[str, Any] | None]
    methods: dict[str, dict[str, dict[str, Any] | None]] = Field(min_length=1)


def recipe_of(plan: StudyPlan, path: Path, method: str, folder: Path) -> Path:
    """Write the study's recipe with a method's objective, and return its path."""
    tree = read_yaml(path.parent / plan.recipe)
    tree["objective"] = {**plan.always, **plan.methods[method]}
    locate_plugins(tree, (path.parent / plan.recipe).parent)
    file = folder / "recipes" / f"{method}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, dump_yaml(tree))
    return file


def read_plan(path: Path) -> StudyPlan:
    """Return the plan in a study's file.

    Raises:
        UserError: if the file is not a study, or a method or task cannot be the name of a folder.
    """
    try:
        plan = StudyPlan.model_validate(read_yaml(path))
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise UserError(
            str(path),
            "a study",
            mistakes,
            fix="see distil_nlp.study.plan.StudyPlan",
        ) from error
    check_path_names("methods", [*plan.methods])
    check_path_names("tasks", plan.tasks)
    return plan
