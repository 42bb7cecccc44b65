"""An average of the student's weights, which is the student in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.training.ema import EMA, validate_averaging

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _average(recipe: Recipe, teacher: Any = None) -> EMA:
    assert recipe.student.ema is not None  # or the recipe would not have the scheme
    return EMA(recipe.student.ema)


def _check(plan: RunPlan) -> None:
    validate_averaging(_average(plan.recipe).decay, plan.is_sharded)


WEIGHT_AVERAGE = Scheme(
    "student",
    "ema",
    "average of the student’s weights",
    "1703.01780",
    lambda recipe: _average(recipe).sentence,
    check=_check,
    extension=_average,
)
