"""The file of a study, and the recipes that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from distil_nlp.errors import UserError
from distil_nlp.recipe.load import dump_yaml, read_yaml
from distil_nlp.utils.files import write_atomically

BASELINE_METHOD = "plain"
"""The method that adds nothing to the terms of all; the others' cost is counted from it."""


class StudyPlan(BaseModel):
    """What a study's file says.

    Attributes:
        recipe: of all runs but for its objective; a path from the file's folder.
        tasks: of GLUE. seeds: students of each run.
        always: terms of every run. methods: name → terms that are added, or given other options.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    tasks: list[str] = Field(min_length=1)
    seeds: PositiveInt = 3
    always: dict[str, dict[str, Any] | None]
    methods: dict[str, dict[str, dict[str, Any] | None]] = Field(min_length=1)


def recipe_of(plan: StudyPlan, path: Path, method: str, folder: Path) -> Path:
    """The study's recipe with a method's objective."""
    tree = read_yaml(path.parent / plan.recipe)
    tree["objective"] = {**plan.always, **plan.methods[method]}
    file = folder / "recipes" / f"{method}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, dump_yaml(tree))
    return file


def read_plan(path: Path) -> StudyPlan:
    try:
        return StudyPlan.model_validate(read_yaml(path))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(f"{path}: expected a study / got: {wrong} / see distil_nlp.study.Plan") from error
