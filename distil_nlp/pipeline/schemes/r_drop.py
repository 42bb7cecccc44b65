"""R-Drop: the student reads each row twice."""

from __future__ import annotations

from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe


def _r_drop(recipe: Recipe) -> str:
    return "In training the student read each row twice, with other dropout, and learned to answer both times alike."


R_DROP = Scheme("objective", "r_drop", "R-Drop", "2106.14448", _r_drop)
