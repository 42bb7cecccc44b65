"""The recipe sections `objective` and `balance`."""

from __future__ import annotations

from typing import Any

from distil_nlp.objective import LossTerm
from distil_nlp.objective.balancing import LossBalancer
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Schedule
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import Change
from distil_nlp.tasks import TaskKind


def objective_from(recipe: Recipe, kind: TaskKind | str) -> Objective:
    """Return the objective of a recipe: its terms, with schedules and balancing."""
    section, balance = recipe.objective, recipe.balance
    named = {term: getattr(section, name) for name, term in recipe.terms.items()}
    terms = [_term(term, settings) for term, settings in named.items() if settings]
    return Objective(terms, kind, None if balance.kind == "fixed" else LossBalancer(**balance.model_dump()))


def _term(term: type[LossTerm], section: Any) -> LossTerm:
    fields = section.model_dump(exclude={"schedule"})
    for scheduled in type(section.schedule).model_fields:
        fields[scheduled] = _schedule(fields[scheduled], getattr(section.schedule, scheduled))
    return term(**fields)


def _schedule(start: float, change: Change | None) -> Schedule:
    return Schedule(start) if change is None else Schedule(start, change.end, change.shape)
