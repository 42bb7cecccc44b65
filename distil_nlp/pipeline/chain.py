"""Checks of a chain: runs whose students teach the next, such as assistants and generations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from distil_nlp.errors import UserError, listed
from distil_nlp.models.layer_choice import choose_layers
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.links import Link
from distil_nlp.pipeline.peek import peek_shape
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.schemes import schemes_of


def validate_chain(plan: RunPlan, links: Sequence[Link]) -> None:
    """Raise UserError for what does not go together with the links of a plan.

    Args:
        links: at least one.
    """
    recipe, schemes = plan.recipe, schemes_of(plan.recipe)
    keys = [scheme.place for scheme in schemes]
    if recipe.teacher.assistants and recipe.student.generations > 1:
        raise UserError("student.generations", "1 with teacher.assistants", "more", fix="leave one of the two out")
    if recipe.teacher.reseed:
        raise UserError(
            "teacher.reseed",
            f"false with {keys[0]}",
            "true",
            why="all seeds are taught by the same chain of students",
            fix="leave it out",
        )
    if recipe.teacher.guided == "dense" and recipe.teacher.ensemble:
        raise UserError(
            "teacher.guided",
            "last with teacher.ensemble",
            "dense",
            why="the teacher among the guides is one model",
            fix="leave one of the two out",
        )
    others = [scheme for scheme in schemes if scheme.place in ("teacher.self", "teacher.checkpoints")]
    if others and (recipe.teacher.assistants or recipe.student.generations > 1):
        raise UserError(
            keys[0],
            "no teacher.self or teacher.checkpoints beside it",
            " and ".join(keys),
            why="another student teaches already",
            fix="leave one of the two out",
        )
    if not plan.objective.needs_teacher:
        raise UserError(
            "objective",
            f"a term that learns from a teacher, for {keys[0]}",
            listed(plan.objective.names),
            why="those that are trained in between would teach nothing",
            fix="add one, such as soft_target_kl",
        )
    _check_layer_pairs(plan, links)


def _check_layer_pairs(plan: RunPlan, links: Sequence[Link]) -> None:
    """Raise UserError if the terms cannot pair the layers of a link and what it teaches.

    What cannot be looked at passes.
    """
    guide = peek_shape(plan.recipe.teacher.name, plan.recipe.teacher.revision)
    if guide is None:
        return
    teacher = guide
    for recipe in [*(link.recipe for link in links), plan.recipe]:
        if recipe.student.name is not None:
            return
        choice = "every_other" if recipe.student.layers == "important" else recipe.student.layers  # as many
        origin = guide if recipe.teacher.start == "assistant" else teacher
        layers = choose_layers(choice, origin.num_layers, recipe.student.num_layers)
        depth = len(layers) if layers else recipe.student.num_layers or origin.num_layers // 2
        student = dataclasses.replace(teacher, num_layers=depth)
        with torch.random.fork_rng(devices=[]):
            builders.objective_from(recipe, plan.task.kind).bind(guide, student)
        guide = student
