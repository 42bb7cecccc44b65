"""Quantisation-aware training: the student's blocks compute as their int8 copies will."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distil_nlp.errors import UserError
from distil_nlp.pipeline.schemes.alone import check_no_other_models
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.training.fake_quantization import QUANTIZATION, QuantizationAware, validate_quantization

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _quantization(recipe: Recipe, teacher: Any = None) -> QuantizationAware:
    assert recipe.student.quantization is not None  # or the recipe would not have the scheme
    return QuantizationAware(**recipe.student.quantization.model_dump())


def _check(plan: RunPlan) -> None:
    """Raise UserError for what does not go with quantisation-aware training, and for an export of other weights."""
    student, exported = plan.recipe.student, plan.recipe.export.reduce_range
    validate_quantization(plan.is_sharded, student.augment is not None)
    check_no_other_models(student, QUANTIZATION)
    assert student.quantization is not None  # or the recipe would not have the scheme
    if exported not in (None, student.quantization.reduce_range):
        raise UserError(
            f"{QUANTIZATION}.reduce_range",
            f"the same as export.reduce_range, {str(exported).lower()}",
            str(student.quantization.reduce_range).lower(),
            why="the student would be trained for other weights than its int8 copy has",
            fix="set both alike",
        )


QUANTIZATION_AWARE = Scheme(
    "student",
    "quantization",
    "quantisation-aware training",
    "1712.05877",
    lambda recipe: _quantization(recipe).sentence,
    check=_check,
    extension=_quantization,
)
