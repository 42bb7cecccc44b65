"""The work that runs of a study share, done once before they start side by side: the teacher, and its answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pkgutil import resolve_name

from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.pipeline import Pipeline
from distil_nlp.pipeline.plan import RunPlan, sources
from distil_nlp.pipeline.provenance import provenance_of
from distil_nlp.pipeline.teacher import finetuning_fields
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.recipe import Recipe, load_recipe
from distil_nlp.utils.hub_connection import use_cache_without_network

PREPARE = "distil_nlp.study.prepare:prepare"
"""The entry of a job that prepares a recipe."""
_GUARD = "distil_nlp.cli.guard:run_guarded"


def teacher_key(recipe: Recipe) -> str:
    """Return what runs have in common that share a teacher and rows, as far as their recipes tell."""
    data = recipe.data.model_dump(mode="json", exclude={"augmentation"})
    teacher = recipe.teacher.model_dump(mode="json", exclude={"cache"})
    fields = [finetuning_fields(recipe), recipe.training.get("eval_strategy")]
    return json.dumps([data, teacher, fields], sort_keys=True, default=str)


def prepare(arguments: Sequence[str]) -> int:
    """Fine-tune and score the teacher of a recipe and tokenise its rows; return the exit code.

    Args:
        arguments: the recipe's file, and overrides.
    """
    path, *overrides = arguments
    return resolve_name(_GUARD)(lambda: _prepare(load_recipe(path, overrides)))


def _prepare(recipe: Recipe) -> None:
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, "teacher")
    preflight.validate_plan(plan)
    plan = plan.with_trained_teacher()
    tokenizers, data = load_data(plan)
    provenance = provenance_of(plan.recipe, data, tokenizers.student)
    pipeline = Pipeline(plan, tokenizers.student, data, provenance, TeacherLoader(plan, tokenizers, data))
    scores = pipeline.first_scores()
    pipeline.teacher_of(plan.main, pipeline.student_run(plan.main, scores), scores)
