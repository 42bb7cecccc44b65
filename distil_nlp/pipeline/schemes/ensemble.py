"""Several teachers, whose outputs are mixed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distil_nlp.errors import UserError
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.schemes.answers import check_answer_columns
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.teachers import ensemble_sentence
from distil_nlp.results import RunResults
from distil_nlp.teachers.answers import validate_unchanged_rows
from distil_nlp.teachers.ensemble_teacher import validate_mixing

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _ensemble(recipe: Recipe) -> str:
    return ensemble_sentence(RunResults("", Path(), {"recipe": recipe.model_dump(mode="json")}))


def _check(plan: RunPlan) -> None:
    """Raise UserError for weights and means of several teachers that the task, a term or the cache rules out."""
    teacher = plan.recipe.teacher
    if not teacher.ensemble:
        return
    _check_answers(plan)
    mixing = builders.mixing_of(plan.recipe)
    if len(mixing.active) == 1 and (mixing.mix, mixing.weighting) != ("logits", "fixed"):
        raise UserError(
            "teacher.ensemble",
            f"two teachers with a weight above 0 for teacher.mix={mixing.mix} and teacher.weighting={mixing.weighting}",
            "one",
            why="there would be nothing to mix",
            fix="raise a weight, or leave them out",
        )
    validate_mixing(mixing, plan.objective, is_cached=teacher.cache is not None)


def _check_answers(plan: RunPlan) -> None:
    """Raise UserError for answers that cannot be one of several teachers."""
    columns = [one.columns for one in plan.recipe.teacher.ensemble or () if one.columns is not None]
    if len(columns) > 1:
        raise UserError(
            "teacher.ensemble",
            "one member with columns",
            f"{len(columns)}",
            why="a row has one answer beside those of models",
            fix="put the mean of the answers into one column",
        )
    for section in columns:
        check_answer_columns(section, "teacher.ensemble.columns")
        validate_unchanged_rows(dict(plan.recipe.data.augmentation), "columns in teacher.ensemble")


ENSEMBLE = Scheme(
    "teacher", "ensemble", "several teachers", "1503.02531", _ensemble, ("weight", "mix", "weighting"), _check
)
