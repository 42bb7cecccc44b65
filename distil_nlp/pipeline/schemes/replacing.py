"""Module replacing (BERT-of-Theseus): the teacher's layers run in place of the student's, by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from distil_nlp.errors import UserError
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.peek import peek_config
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.pipeline.signal_request import student_request
from distil_nlp.recipe import Recipe
from distil_nlp.signals.types import SignalRequest
from distil_nlp.training.replacing import Replacing, validate_replacing

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _sentence(recipe: Recipe) -> str:
    section = recipe.student.replacing
    return Replacing([], section.start, section.full_at).sentence if section else ""


def _replacing(recipe: Recipe, teacher: Any) -> Replacing:
    """Return the settings for the layers that a student was copied from.

    Args:
        recipe: of the student.
        teacher: a model, or its configuration.

    Raises:
        UserError: if the student is not made of the teacher's layers.
    """
    section = recipe.student
    assert section.replacing is not None  # or the recipe would not have the scheme
    layers = builders.copied_layers(section, teacher)
    if layers is None:
        raise UserError(
            "student.replacing",
            "a student made of the teacher's layers",
            f"student.name={section.name}" if section.name else "student.layers=random",
            why="its layers stand in for those that they were copied from",
            fix="leave one of the two out",
        )
    return Replacing(layers, section.replacing.start, section.replacing.full_at)


def _check(plan: RunPlan) -> None:
    """Raise UserError for a student whose layers cannot stand in for the teacher's."""
    recipe, student = plan.recipe, plan.recipe.student
    if "random_init" in recipe.evaluation.baselines:
        raise UserError(
            "evaluation.baselines",
            "no random_init with student.replacing",
            "random_init",
            why="random layers come from none of the teacher's that they could stand in for",
            fix="leave one of the two out",
        )
    others = {
        "teacher.self": recipe.teacher.self,
        "teacher.assistants": recipe.teacher.assistants,
        "student.generations": student.generations > 1,
    }
    beside = [name for name, value in others.items() if value]
    if beside:
        raise UserError(
            "student.replacing",
            f"no {beside[0]} beside it",
            "both",
            why="the layers that stand in are the teacher's own",
            fix="leave one of the two out",
        )
    if student.architecture != "same":
        raise UserError(
            "student.replacing",
            "student.architecture=same",
            student.architecture,
            why="layers of other classes cannot take the place of the teacher's",
            fix="leave one of the two out",
        )
    config = peek_config(recipe.teacher.name, recipe.teacher.revision)
    if config is not None:
        _check_shape(recipe, config)
    validate_replacing(plan.args, student_request(plan) or SignalRequest(), plan.is_sharded)


def _check_shape(recipe: Recipe, config: PretrainedConfig) -> None:
    """Raise UserError for layers that stand in for none of the teacher's, and for another width than theirs."""
    _replacing(recipe, config).groups(config.num_hidden_layers)
    width = recipe.student.config.get("hidden_size", config.hidden_size)
    if width != config.hidden_size:
        raise UserError(
            "student.config.hidden_size",
            f"the teacher's {config.hidden_size} with student.replacing",
            str(width),
            why="the teacher's layers run on the student's states",
            fix="leave one of the two out",
        )


REPLACING = Scheme(
    "student",
    "replacing",
    "module replacing (BERT-of-Theseus)",
    "2002.02925",
    _sentence,
    check=_check,
    extension=_replacing,
)
