"""`MultitaskRecipe`: several tasks at once, where `data` is a list: a recipe for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError, quoted
from distil_nlp.recipe.sections import Recipe
from distil_nlp.tasks import CUSTOM_TASKS
from distil_nlp.utils.names import check_path_names, path_name

_OF_ENTRIES = ("task_name", "teacher", "objective")
"""Keys of an entry of `data` that are not of the section: the task's name, keys of its own teacher, its own terms."""


@dataclass(frozen=True)
class MultitaskRecipe:
    """The settings of a run of several tasks.

    Attributes:
        tasks: name of a task → its recipe, with its own `data`, `teacher` and `objective`, and all else as the others.
        settings: the settings as they were given, overrides merged.
    """

    tasks: Mapping[str, Recipe]
    settings: Mapping[str, Any]

    @property
    def first(self) -> Recipe:
        """The recipe of the first task."""
        return next(iter(self.tasks.values()))


def task_trees(tree: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the name of each task and the settings of its recipe, and all mistakes in the list `data`.

    Args:
        tree: settings by section, where `data` is a list.
    """
    entries: list[Any] = tree["data"]
    if not entries:
        return {}, ["data: expected a section, or a list of sections / got an empty list"]
    wrong = [one for one in entries if not isinstance(one, dict)]
    if wrong:
        return {}, [f"data: expected a list of sections / got {quoted(wrong[0])} in it"]
    names = [entry_name(entry) for entry in entries]
    mistakes = _mistakes_in(names)
    section = tree.get("multitask") or {}
    if not isinstance(section, dict):
        return {}, [*mistakes, f"multitask: expected a section / got {quoted(section)}"]
    given = [key for key in ("tasks", "task") if key in section]
    mistakes += [f"multitask.{key}: unknown key; it is filled in from the list data" for key in given]
    own = {**section, "tasks": names}
    trees = {
        name: {**tree, **_own_sections(tree, entry), "multitask": {**own, "task": name}}
        for name, entry in zip(names, entries, strict=True)
    }
    return ({}, mistakes) if mistakes else (deepcopy(trees), [])


def entry_name(entry: Mapping[str, Any]) -> str:
    """Return the name of a task: `task_name`, or that of the GLUE task, or of the data's folder or file."""
    if "task_name" in entry:
        return str(entry["task_name"])
    task, path = str(entry.get("task", "task")), entry.get("path")
    if task not in CUSTOM_TASKS or not isinstance(path, str):
        return path_name(task)
    return path_name(Path(path).stem)


def _mistakes_in(names: list[str]) -> list[str]:
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        return [f"data: expected a name of its own for each task / got {', '.join(double)} twice / "
                "each has a head and a folder of that name / set task_name in the list"]  # fmt: skip
    try:
        check_path_names("data.task_name", names)
    except UserError as error:
        return [str(error)]
    return []


def _own_sections(tree: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections that a task has of its own."""
    data = {key: value for key, value in entry.items() if key not in _OF_ENTRIES}
    return {"data": data, "teacher": _teacher(tree, entry), "objective": _objective(tree, entry)}


def _teacher(tree: Mapping[str, Any], entry: Mapping[str, Any]) -> Any:
    """Return the section `teacher` of a task: the recipe's, with what the task's entry has of its own."""
    shared, own = tree.get("teacher", {}), entry.get("teacher") or {}
    if not isinstance(shared, dict) or not isinstance(own, dict):
        return own or shared
    kept = {key: value for key, value in shared.items() if not (key == "revision" and "name" in own)}
    return kept | own


def _objective(tree: Mapping[str, Any], entry: Mapping[str, Any]) -> Any:
    """Return the section `objective` of a task: the recipe's, with the entry's own terms; null leaves one out."""
    shared, own = tree.get("objective", {}), entry.get("objective") or {}
    if not isinstance(shared, dict) or not isinstance(own, dict):
        return own or shared
    return {name: term for name, term in (shared | own).items() if term is not None}
