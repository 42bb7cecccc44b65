"""Recipes: YAML → typed, strict sections. Every mistake in one message."""

from distil_nlp.recipe.load import dump_recipe, load_recipe
from distil_nlp.recipe.sections import Recipe

__all__ = ["Recipe", "dump_recipe", "load_recipe"]
