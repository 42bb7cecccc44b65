"""The signals that a plan's objective will ask for, before data and models are loaded."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.peek import peek_shape
from distil_nlp.signals.types import SignalRequest

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def student_request(plan: RunPlan) -> SignalRequest | None:
    """Return the signals that the terms ask of a student of the teacher's shape; None where it cannot be looked at."""
    objective = bound_objective(plan)
    return None if objective is None else objective.request("student")


def bound_objective(plan: RunPlan) -> Objective | None:
    """Return a plan's objective, bound to a student of the teacher's shape; None where that cannot be looked at.

    What is wrong with such a teacher or objective is told where it is loaded.
    """
    objective = copy.deepcopy(plan.objective)
    shape = peek_shape(plan.recipe.teacher.name, plan.recipe.teacher.revision)
    if shape is None:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            objective.bind(shape, shape)
    except Exception:  # whatever a term asks for
        return None
    return objective
