"""Sparsity: weights of the student become zero in training, by magnitude or movement pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distil_nlp.models.linear_layers import encoder_linear_layers
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.peek import peek_encoder
from distil_nlp.pipeline.schemes.alone import check_no_other_models
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.pipeline.signal_request import student_request
from distil_nlp.recipe import Recipe
from distil_nlp.signals.types import SignalRequest
from distil_nlp.training.sparsity import SPARSITY, Sparsity, validate_sparsity, validate_widths

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _sparsity(recipe: Recipe, teacher: Any = None) -> Sparsity:
    assert recipe.student.sparsity is not None  # or the recipe would not have the scheme
    return Sparsity(**recipe.student.sparsity.model_dump())


def _check(plan: RunPlan) -> None:
    """Raise UserError for what does not go with sparsity, and for widths that a pattern does not divide.

    The weights are not read, nor is memory taken: the student is a shell of its first layer.
    """
    student = plan.recipe.student
    validate_sparsity(student_request(plan) or SignalRequest(), plan.is_sharded, student.augment is not None)
    check_no_other_models(student, SPARSITY)
    sparsity = _sparsity(plan.recipe)
    shell = peek_encoder(*builders.starting_model(plan.recipe), **student.config)
    if shell is not None:
        validate_widths(encoder_linear_layers(shell, SPARSITY), sparsity)


SPARSE = Scheme(
    "student",
    "sparsity",
    "sparsity",
    None,
    lambda recipe: _sparsity(recipe).sentence,
    check=_check,
    extension=_sparsity,
)
