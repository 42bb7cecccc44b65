"""The plan of a study, and the recipe of each of its methods."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.recipe import Recipe, dump_yaml, read_yaml
from distil_nlp.recipe.plugins import locate_plugins
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.names import check_path_names

_PLAIN = "plain"
"""The method that others are compared with, if it is there and no other is named."""
_EXAMPLES = {
    "recipe": "../glue.yaml, relative to this file",
    "tasks": "[mrpc, rte], or [classification] for columns that the recipe names; left out, the recipe's own",
    "seeds": "3",
    "always": "{soft_target_kl: {}, hard_label: {}}: terms of every run",
    "methods": "{plain: {}, cosine: {hidden_cosine: {layers: last}}}: name → terms that are added",
    "baseline": "the name of one of the methods",
}


class StudyPlan(BaseModel):
    """The contents of a study's file.

    Attributes:
        recipe: path of the recipe of all runs, whose objective is replaced; relative to the study's file.
        tasks: tasks that every method is run on; by default the recipe's own.
        seeds: students of each run.
        always: terms of every run.
        methods: name → terms that are added, or given other options. Names are those of folders.
        baseline: the method that the others are compared with; by default `plain`, or the first.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: PositiveInt = 3
    always: dict[str, dict[str, Any] | None]
    methods: dict[str, dict[str, dict[str, Any] | None]] = Field(min_length=1)
    baseline: str | None = None

    @property
    def compared_with(self) -> str:
        """The method that the others are compared with."""
        return self.baseline or (_PLAIN if _PLAIN in self.methods else next(iter(self.methods)))


def recipe_of(plan: StudyPlan, path: Path, method: str, folder: Path) -> Path:
    """Write the study's recipe with a method's objective, and return its path."""
    tree = read_yaml(path.parent / plan.recipe)
    tree["objective"] = {**plan.always, **plan.methods[method]}
    locate_plugins(tree, (path.parent / plan.recipe).parent)
    file = folder / "recipes" / f"{method}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, dump_yaml(tree))
    return file


def run_overrides(plan: StudyPlan, task: str, run_folder: Path, overrides: Sequence[str]) -> list[str]:
    """Return `section.key=value` of one run: those for all runs, and its task, seeds and folder.

    On dashboards (trackio; W&B by the runner) all runs of a study are in a project of its name, unless another is set.
    """
    place, project = (json.dumps(str(one), ensure_ascii=False) for one in (run_folder, run_folder.parents[1].name))
    shown = [f"training.project={project}", f"training.run_name={json.dumps(f'{task}-{run_folder.name}')}"]
    own = [f"data.task={task}", f"evaluation.seeds={plan.seeds}", f"training.output_dir={place}"]
    return [*shown, *overrides, *own]


def read_plan(path: Path) -> StudyPlan:
    """Return the plan in a study's file.

    Raises:
        UserError: if the file is not a study, or a method or task cannot be the name of a folder.
    """
    try:
        plan = StudyPlan.model_validate(read_yaml(path))
    except ValidationError as error:
        mistakes = "; ".join(dict.fromkeys(map(_describe, error.errors())))
        raise UserError(str(path), "a study", mistakes, fix="see docs/studies.md") from error
    if plan.baseline is not None and plan.baseline not in plan.methods:
        raise UserError("baseline", f"one of {listed(plan.methods, 50)}", quoted(plan.baseline))
    if plan.tasks is None:
        plan.tasks = [_task_of(path.parent / plan.recipe)]
    check_path_names("methods", [*plan.methods])
    check_path_names("tasks", plan.tasks)
    return plan


def _task_of(recipe: Path) -> str:
    """Return the task of a recipe.

    Raises:
        UserError: if it has none.
    """
    data = read_yaml(recipe).get("data")
    task = data.get("task") if isinstance(data, dict) else None
    if not isinstance(task, str):
        raise UserError("tasks", f"a list such as {_EXAMPLES['tasks']}", "none, and none in the recipe", fix="add it")
    return task


def _describe(error: Any) -> str:
    """Return one of pydantic's errors in words for the writer of a study's file."""
    key, *within = map(str, error["loc"])
    place, example = ".".join([key, *within]), _EXAMPLES.get(key)
    if error["type"] == "missing":
        return f"{place}: missing, such as {example}"
    if error["type"] == "extra_forbidden":
        if key in Recipe.model_fields:
            return f"{place}: a recipe's key; set it in the recipe that the study names"
        near = difflib.get_close_matches(key, _EXAMPLES, 1)
        return f"{place}: unknown key; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(_EXAMPLES)}"
    return f"{place}: expected a value such as {example} / got {quoted(error['input'])}"
