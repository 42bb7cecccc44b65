"""Recipes: YAML files → typed, strict sections, with all mistakes in one message."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil_nlp.recipe.forms import complete, concise
    from distil_nlp.recipe.load import any_recipe_from, dump_recipe, load_any_recipe, load_recipe, recipe_from
    from distil_nlp.recipe.multitask import MultitaskRecipe
    from distil_nlp.recipe.sections import Recipe
    from distil_nlp.recipe.yaml_file import dump_yaml, read_yaml

__all__ = [
    "MultitaskRecipe",
    "Recipe",
    "any_recipe_from",
    "complete",
    "concise",
    "dump_recipe",
    "dump_yaml",
    "load_any_recipe",
    "load_recipe",
    "read_yaml",
    "recipe_from",
]

_HOMES = {
    "MultitaskRecipe": "multitask",
    "Recipe": "sections",
    "any_recipe_from": "load",
    "complete": "forms",
    "concise": "forms",
    "dump_recipe": "load",
    "dump_yaml": "yaml_file",
    "load_any_recipe": "load",
    "load_recipe": "load",
    "read_yaml": "yaml_file",
    "recipe_from": "load",
}
"""Public name → its module, which is imported when the name is first used: the sections need torch, files do not."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'distil_nlp.recipe' has no attribute {name!r}")
    return getattr(import_module(f"distil_nlp.recipe.{_HOMES[name]}"), name)
