"""Born-again networks: each generation of a student teaches the next."""

from __future__ import annotations

from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe


def _generations(recipe: Recipe) -> str:
    count = recipe.student.generations
    return f"The student is the last of {count} generations of its shape: the teacher taught the first, each the next."


GENERATIONS = Scheme("student", "generations", "generations (born-again networks)", "1805.04770", _generations)
