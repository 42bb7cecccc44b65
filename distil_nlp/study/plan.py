"""The plan of a study, and the recipe of each of its methods."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, PrivateAttr, ValidationError, field_validator

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.recipe import Recipe, dump_yaml, read_yaml
from distil_nlp.recipe.plugins import locate_plugins
from distil_nlp.recipe.shipped import shipped_file
from distil_nlp.recipe.yaml_file import parse_yaml
from distil_nlp.study.axes import Axis, axis_of
from distil_nlp.study.search_space import SearchSettings
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.names import check_path_names

LABELS_ONLY_METHOD = "labels_only"
"""The method without a teacher that a grid or a sweep is compared with."""
LABELS_KEY = "data.labelled_share"
"""The key of a learning curve over labels, beside all texts."""
SHARE_KEYS = ("data.share", LABELS_KEY)
"""The keys of learning curves: over rows, and over labels."""
_PLAIN, _ONLY = "plain", "distilled"
"""The method that others are compared with, if it is there and no other is named; the method of a study without any."""
WITHOUT_TEACHER: dict[str, Any] = {
    "data.augmentation.mixup": None, "student.replacing": None, "student.augment": None, "student.exits": None,
    "student.peers": None, "student.branches": None, "teacher.self": None,
}  # fmt: skip
"""Keys that mean nothing to a student without a teacher; see `StudentPlan.recipe`."""
_QUICK: dict[str, Any] = {
    "evaluation.efficiency": "off", "evaluation.compare_layers": False, "evaluation.baselines": [], "run.report": False,
}  # fmt: skip
"""What a run of a study leaves out, unless the study asks for it."""
_EXAMPLES = {
    "recipe": "glue, one that comes with the package, or a file, relative to this one",
    "tasks": "[mrpc, rte], or [classification] for columns that the recipe names; left out, the recipe's own",
    "seeds": "3",
    "always": "{soft_target_kl: {}, hard_label: {}}: terms of every run",
    "methods": "{plain: {}, cosine: {hidden_cosine: {layers: last}}}: name → terms that are added",
    "grid": "{objective.soft_target_kl.temperature: [1, 2, 4], objective.soft_target_kl.weight: [0, 0.5, 1]}",
    "sweep": "{data.share: [0.01, 0.1, 1.0]}, one key of the recipe and its values",
    "equal": "[epochs, steps], beside a sweep of data.share",
    "search": "{space: {training.learning_rate: {low: 1e-5, high: 3e-4, log: true}}, runs: 20}",
    "baseline": "the name of one of the methods",
}

Terms = dict[str, dict[str, Any] | None]
_Values = list[Any] | dict[str, list[Any]]


class StudyPlan(BaseModel):
    """The contents of a study's file.

    Attributes:
        recipe: path of the recipe of all runs; relative to the study's file.
        tasks: tasks that every method is run on; by default the recipe's own.
        seeds: students of each run.
        always: terms of every run, in place of the recipe's objective.
        methods: name → terms that are added, or given other options, and other keys of the recipe with a dot in them.
            Names are those of folders.
        grid: two keys of the recipe or more, each with its values: every method runs at every point. A name with
            several keys moves them together.
        sweep: likewise, one key.
        equal: for a sweep of `data.share` or `data.labelled_share`: `epochs` trains a share as long as the recipe says,
            which are fewer steps; `steps` for as many steps as all rows take. Of both, each share has two runs of each
            method.
        search: keys of the recipe whose values are looked for, for each method.
        baseline: the method that the others are compared with; by default `labels_only` for a grid or a sweep, else
            `plain`, or the first.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: PositiveInt = 3
    always: Terms | None = None
    methods: dict[str, dict[str, Any]] = Field(default={_ONLY: {}}, min_length=1)
    grid: Annotated[dict[str, _Values], Field(min_length=2)] | None = None
    sweep: Annotated[dict[str, _Values], Field(min_length=1, max_length=1)] | None = None
    equal: Annotated[list[Literal["epochs", "steps"]], Field(min_length=1)] = ["epochs"]
    search: SearchSettings | None = None
    baseline: str | None = None
    _all_steps: dict[str, int] = PrivateAttr(default_factory=dict)
    _found: dict[tuple[str, str], dict[str, Any]] = PrivateAttr(default_factory=dict)

    @field_validator("methods")
    @classmethod
    def _has_terms(cls, methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Refuse a term that is no section; keys of the recipe may have any value."""
        for changes in methods.values():
            if wrong := [name for name, value in changes.items() if "." not in name and not _is_section(value)]:
                raise ValueError(f"{wrong[0]} is no term with its options")
        return methods

    @property
    def axes(self) -> list[Axis]:
        """The keys that a grid or a sweep varies."""
        return [axis_of(name, values) for name, values in (self.grid or self.sweep or {}).items()]

    @property
    def all_steps(self) -> dict[str, int]:
        """The steps that all rows of a task take, filled in where `equal` needs them."""
        return self._all_steps

    @property
    def found(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Task and method → the keys that a search has found, filled in as searches end."""
        return self._found

    @property
    def compared_with(self) -> str:
        """The method that the others are compared with."""
        if self.baseline:
            return self.baseline
        if self.axes:
            return LABELS_ONLY_METHOD
        return _PLAIN if _PLAIN in self.methods else next(iter(self.methods))

    def recipe_file(self, path: Path) -> Path:
        """Return the file of the recipe: one relative to the study's own, or the shipped one of that name."""
        file = path.parent / self.recipe
        return file if file.is_file() else shipped_file(self.recipe) or file

    @property
    def all_methods(self) -> list[str]:
        """The names of the methods, and of the one without a teacher that a grid or a sweep adds."""
        return [*self.methods, *([] if self.compared_with in self.methods else [self.compared_with])]


def _is_section(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def recipe_of(plan: StudyPlan, path: Path, method: str, folder: Path) -> Path:
    """Write the study's recipe with a method's objective and keys, and return its path.

    Args:
        plan: the study's.
        path: its file.
        method: the name of one of its methods.
        folder: of the study's runs, which share what they keep in it.
    """
    tree = read_yaml(plan.recipe_file(path))
    shared = {"run.outputs_folder": str(folder / "outputs")}
    weak = {"run.accept_weak_teacher": True} if plan.axes else {}
    changes = plan.methods.get(method)
    if changes is None:
        tree["objective"], changes = {"hard_label": {}}, WITHOUT_TEACHER
    else:
        base = tree.get("objective") if plan.always is None else plan.always
        terms = {name: options for name, options in changes.items() if "." not in name}
        if base is not None or terms:
            tree["objective"] = {**(base or {}), **terms}
        changes = {key: value for key, value in changes.items() if "." in key}
    for key, value in {**_QUICK, **shared, **weak, **changes}.items():
        _set_key(tree, key.split("."), value)
    locate_plugins(tree, plan.recipe_file(path).parent)
    file = folder / "recipes" / f"{method}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, dump_yaml(tree))
    return file


def _set_key(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a value by its keys; what is not there is not made for the sake of null, which is its default."""
    for part in parts[:-1]:
        if not isinstance(tree.get(part), dict):
            if value is None:
                return
            tree[part] = {}
        tree = tree[part]
    tree[parts[-1]] = value


def read_plan(path: Path, overrides: Sequence[str] = ()) -> StudyPlan:
    """Return the plan in a study's file.

    Args:
        path: the file.
        overrides: `section.key=value` for all runs; `evaluation.seeds` and `data.task` stand for the plan's own `seeds`
            and `tasks`.

    Raises:
        UserError: if the file is not a study, a method or task cannot be the name of a folder, or all runs would have
            one folder.
    """
    tree = {**read_yaml(path), **_own_keys(overrides)}
    try:
        plan = StudyPlan.model_validate(tree)
        _check_axes(plan, tree)
    except ValidationError as error:
        mistakes = "; ".join(dict.fromkeys(map(_describe, _telling(error.errors()))))
        raise UserError(str(path), "a study", mistakes, fix="see docs/studies.md") from error
    if plan.baseline is not None and plan.baseline not in plan.methods:
        raise UserError("baseline", f"one of {listed(plan.methods, 50)}", quoted(plan.baseline))
    if plan.tasks is None:
        plan.tasks = [_task_of(plan.recipe_file(path))]
    check_path_names("methods", [*plan.methods])
    check_path_names("tasks", plan.tasks)
    return plan


def _own_keys(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plan's keys that overrides for all runs stand for; a value that is no YAML is told with the recipe."""
    tree: dict[str, Any] = {}
    given = {key.strip(): value for key, _, value in (one.partition("=") for one in overrides)}
    if "training.output_dir" in given:
        raise UserError(
            "training.output_dir",
            "--output, the folder of the study",
            quoted(given["training.output_dir"]),
            why="each run has a folder of its own in it",
            fix=f"--output {given['training.output_dir']}",
        )
    with suppress(yaml.YAMLError, ValueError, RecursionError):
        if "evaluation.seeds" in given:
            tree["seeds"] = parse_yaml(given["evaluation.seeds"])
        if "data.task" in given:
            tasks = parse_yaml(given["data.task"])
            tree["tasks"] = tasks if isinstance(tasks, list) else [tasks]
    return tree


def _check_axes(plan: StudyPlan, tree: Mapping[str, Any]) -> None:
    """Raise UserError for a file that varies nothing, and for a grid or sweep whose values do not make one."""
    varied = [name for name in ("methods", "grid", "sweep", "search") if tree.get(name) is not None]
    if not varied:
        raise UserError(
            "methods", "methods, a grid, a sweep or a search", "none", why="nothing is varied", fix=_how("sweep")
        )
    if {"grid", "sweep"} <= {*varied}:
        raise UserError("sweep", "a grid or a sweep", "both", fix="make the sweep's key one of the grid's")
    if plan.search is not None:
        if plan.axes:
            raise UserError(
                "search",
                f"a search or a {varied[-2]}",
                "both",
                fix=f"make the {varied[-2]}'s keys some of the search's",
            )
        plan.search.check()
    if "steps" in plan.equal and next(iter(plan.sweep or {}), None) not in SHARE_KEYS:
        keys = " or ".join(SHARE_KEYS)
        raise UserError(
            "equal", f"steps beside a sweep of {keys}", "none", why="runs of the same rows have as many anyway"
        )
    for axis in plan.axes:
        axis.check(varied[-1])


def _how(key: str) -> str:
    return f"add such as {key}: {_EXAMPLES[key]}"


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


def _telling(errors: list[Any]) -> list[Any]:
    """Return the errors of a search that say what is wrong, without those that say what else it might have been."""
    told = [error for error in errors if error["loc"][:1] == ("search",) and error["type"] == "value_error"]
    return [error for error in errors if not told or error in told or error["loc"][:1] != ("search",)]


def _describe(error: Any) -> str:
    """Return one of pydantic's errors in words for the writer of a study's file."""
    key, *within = map(str, error["loc"])
    place, example = ".".join([key, *within]), _EXAMPLES.get(key)
    if key == "search" and error["type"] == "value_error":
        return f"{place.removesuffix('.SearchRange')}: {error['ctx']['error']}, such as {example}"
    if error["type"] == "missing":
        return f"{place}: missing, such as {example}"
    if error["type"] == "extra_forbidden":
        if key in Recipe.model_fields:
            return f"{place}: a recipe's key; set it in the recipe that the study names"
        near = difflib.get_close_matches(key, _EXAMPLES, 1)
        return f"{place}: unknown key; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(_EXAMPLES)}"
    return f"{place}: expected a value such as {example} / got {quoted(error['input'])}"
