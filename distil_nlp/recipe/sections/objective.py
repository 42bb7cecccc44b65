"""The sections `objective` and `balance`: terms of the loss, with the options of their constructors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from inspect import Parameter, signature
from operator import or_
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field, PositiveInt, create_model

from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LossTerm
from distil_nlp.objective.schedule import Curve, Schedule
from distil_nlp.recipe.sections.base import Section


class Change(Section):
    """A change of a number from its start value to `end` over training.

    Attributes:
        shape: curve of the change.
        end: value at the last step.
    """

    shape: Curve
    end: Annotated[float, Field(ge=0)]


class PositiveChange(Change):
    """A change of a number that must stay above 0."""

    end: Annotated[float, Field(gt=0)]


class WeightSchedule(Section):
    """Schedules of a term.

    Attributes:
        weight: change of its weight; constant if null.
    """

    weight: Change | None = None


class TermSection(Section):
    """Settings of a term.

    Attributes:
        weight: factor of the term in the loss.
        schedule: changes of its settings over training.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    schedule: WeightSchedule = WeightSchedule()


def term_section(term: type[LossTerm]) -> type[TermSection]:
    """Return the section of a term, with the parameters of its constructor and their annotations.

    A parameter that may be a `Schedule` is a number in the recipe, and `schedule` may change it.
    """
    hints = get_type_hints(term.__init__, include_extras=True)
    options: dict[str, Any] = {}
    schedules: dict[str, Any] = {}
    for option in list(signature(term.__init__).parameters.values())[1:]:
        if option.name == "weight":
            continue
        hint = hints[option.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if Schedule in kinds:
            schedules[option.name] = (PositiveChange | None, None)
        default = ... if option.default is Parameter.empty else option.default
        options[option.name] = (reduce(or_, (kind for kind in kinds if kind is not Schedule)), default)
    if schedules:
        changes = create_model("Schedule", __base__=WeightSchedule, **schedules)
        options["schedule"] = (changes, changes())
    return create_model(term.name, __base__=TermSection, **options)


class ObjectiveBase(Section):
    """The terms of the loss, by name. A term that is left out, or has weight 0, is not computed."""


def objective_section(terms: Mapping[str, type[LossTerm]]) -> type[Section]:
    """Return the section `objective` with a key for each of these terms."""
    sections: dict[str, Any] = {name: (term_section(term) | None, None) for name, term in terms.items()}
    return create_model("ObjectiveSection", __base__=ObjectiveBase, **sections)


if TYPE_CHECKING:
    ObjectiveSection = ObjectiveBase
else:
    ObjectiveSection = objective_section(TERMS)


class BalanceSection(Section):
    """Balancing of the terms during training; see `distil_nlp.objective.balancing.LossBalancer`.

    Attributes:
        kind: method; `fixed` for none.
        every: steps between two measurements of gradients, for `gradient_norm`.
        decay: of the running means.
    """

    kind: Literal["fixed", "uncertainty", "gradient_norm"] = "fixed"
    every: PositiveInt = 100
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
