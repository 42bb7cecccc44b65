"""An average of the student's weights, which is the student in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.training.checks import validate_averaging
from distil_nlp.training.ema import average_sentence

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _ema(recipe: Recipe) -> str:
    return average_sentence(recipe.student.ema or 0)


def _check(plan: RunPlan) -> None:
    validate_averaging(plan.recipe.student.ema, plan.is_sharded)


WEIGHT_AVERAGE = Scheme("student", "ema", "average of the student’s weights", "1703.01780", _ema, check=_check)
