"""A check for recipe keys that would have no effect."""

from __future__ import annotations

from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.objective import ChosenRowsTerm
from distil_nlp.recipe.sections import Recipe
from distil_nlp.tasks import CUSTOM_TASKS, KINDS, TASKS, TaskKind

_SELF_KEYS = {"alpha": "last_epoch", "decay": "ema", "count": "checkpoints", "every": "checkpoints"}
"""Key of `teacher.self` → the kind that reads it."""
_OF_ENSEMBLES = ("weight", "mix", "weighting")
"""Keys of `teacher` that several teachers read."""


def validate_no_unused_keys(recipe: Recipe, kind: TaskKind | None = None) -> None:
    """Raise UserError for keys that are set but not read for this task.

    Args:
        recipe: the recipe.
        kind: kind of its task; taken from the table of tasks if None.
    """
    kind = kind or TASKS[recipe.data.task].kind
    unused = {**_unused_data_keys(recipe, kind), **_unused_other_keys(recipe, kind)}
    keys = [key for key, is_unused in unused.items() if is_unused]
    if keys:
        raise UserError(
            None,
            f"keys that data.task={recipe.data.task} reads",
            f"{', '.join(keys)} too",
            why="they would have no effect",
            fix="leave them out",
        )


def is_set(section: Any, key: str) -> bool:
    """Return whether a recipe sets a key to another value than the default."""
    return getattr(section, key) != type(section).model_fields[key].default


def _unused_data_keys(recipe: Recipe, kind: TaskKind) -> dict[str, bool]:
    """Return key → whether it is set and not read, for the section `data`."""
    data, is_custom = recipe.data, recipe.data.task in CUSTOM_TASKS
    special = sorted(frozenset().union(*(other.data_keys for other in KINDS.values())))
    unused = {"data.text_columns": not is_custom and is_set(data, "text_columns")}
    unused |= {f"data.{key}": key not in kind.data_keys and is_set(data, key) for key in special}
    unused["data.shuffle_buffer"] = not data.streaming and is_set(data, "shuffle_buffer")
    unused["data.test_share"] |= not is_custom and is_set(data, "test_share")
    unused["data.label_column"] |= (not is_custom or bool(data.label_columns)) and is_set(data, "label_column")
    unused["data.label_separator"] |= bool(data.label_columns) and is_set(data, "label_separator")
    unused["a second of data.text_columns"] = is_custom and len(data.text_columns or []) > kind.max_text_columns
    return unused


def _unused_other_keys(recipe: Recipe, kind: TaskKind) -> dict[str, bool]:
    """Return key → whether it is set and not read, for the other sections."""
    cache, balance, own = recipe.teacher.cache, recipe.balance, recipe.teacher.self
    chosen = [name for name, term in recipe.terms.items() if issubclass(term, ChosenRowsTerm)]
    terms = {name: term for name in chosen if (term := getattr(recipe.objective, name)) is not None}
    terms = {name: term for name, term in terms.items() if "rows" in type(term).model_fields}
    return {
        **{f"objective.{name}.rows": kind.level != "token" and is_set(term, "rows") for name, term in terms.items()},
        "teacher.cache.top_k": not kind.predicts_words and cache is not None and is_set(cache, "top_k"),
        "balance.every": balance.kind != "gradient_norm" and is_set(balance, "every"),
        "run.gradients_every": balance.kind == "gradient_norm" and is_set(recipe.run, "gradients_every"),
        "balance.decay": balance.kind == "fixed" and is_set(balance, "decay"),
        "teacher.guided": not recipe.teacher.assistants and is_set(recipe.teacher, "guided"),
        "teacher.start": not recipe.teacher.assistants and is_set(recipe.teacher, "start"),
        "teacher.drop": recipe.teacher.guided != "dense" and is_set(recipe.teacher, "drop"),
        **{
            f"teacher.self.{key}": own is not None and own.kind != kind and is_set(own, key)
            for key, kind in _SELF_KEYS.items()
        },
        "teacher.dtype": own is not None and is_set(recipe.teacher, "dtype"),
        **{f"teacher.{key}": not recipe.teacher.ensemble and is_set(recipe.teacher, key) for key in _OF_ENSEMBLES},
        "multitask.sampling_power": not recipe.multitask.tasks and is_set(recipe.multitask, "sampling_power"),
        "student.revision": recipe.student.name is None and is_set(recipe.student, "revision"),
    }
