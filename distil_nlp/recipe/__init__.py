"""Recipes: YAML files → typed, strict sections, with all mistakes in one message."""

from distil_nlp.recipe.forms import complete, concise
from distil_nlp.recipe.load import dump_recipe, dump_yaml, load_recipe, read_yaml, recipe_from
from distil_nlp.recipe.sections import Recipe

__all__ = ["Recipe", "complete", "concise", "dump_recipe", "dump_yaml", "load_recipe", "read_yaml", "recipe_from"]
