"""Recipe keys that would have no effect."""

from __future__ import annotations

from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import SoftTerm
from distil_nlp.recipe.sections import Recipe
from distil_nlp.tasks.glue import GLUE


def validate_no_unused_keys(recipe: Recipe) -> None:
    """Keys that the task at hand would not look at are mistakes, not decoration.

    Raises:
        UserError: naming them all.
    """
    data, is_mlm = recipe.data, recipe.data.task == "mlm"
    soft = {
        name: section
        for name, term in TERMS.items()
        if issubclass(term, SoftTerm)
        and (section := getattr(recipe.objective, name)) is not None
        and "rows" in type(section).model_fields
    }
    idle = {
        "data.masking": not is_mlm and _is_set(data, "masking"),
        **{f"objective.{name}.rows": not is_mlm and _is_set(section, "rows") for name, section in soft.items()},
        "data.held_out_share": not is_mlm and _is_set(data, "held_out_share"),
        "data.shuffle_buffer": not data.streaming and _is_set(data, "shuffle_buffer"),
        "data.text_columns": data.task in GLUE and _is_set(data, "text_columns"),
        "data.label_column": (is_mlm or data.task in GLUE) and _is_set(data, "label_column"),
        "data.pad_to_multiple_of": is_mlm and _is_set(data, "pad_to_multiple_of"),
        "a second of data.text_columns": is_mlm and len(data.text_columns or []) > 1,
        "teacher.cache.top_k": not is_mlm
        and recipe.teacher.cache is not None
        and _is_set(recipe.teacher.cache, "top_k"),
        "balance.every": recipe.balance.kind != "gradient_norm" and _is_set(recipe.balance, "every"),
        "run.gradients_every": recipe.balance.kind == "gradient_norm" and _is_set(recipe.run, "gradients_every"),
        "balance.decay": recipe.balance.kind == "fixed" and _is_set(recipe.balance, "decay"),
        "student.revision": recipe.student.name is None and _is_set(recipe.student, "revision"),
    }
    named = [key for key, is_idle in idle.items() if is_idle]
    if named:
        raise UserError(
            f"expected keys that data.task={data.task} looks at / got {', '.join(named)} too / they would have no "
            "effect / leave them out"
        )


def _is_set(section: Any, key: str) -> bool:
    """Whether a recipe gives another value than the default."""
    return getattr(section, key) != type(section).model_fields[key].default
