"""`search` of a study's file: the keys that are looked through, where it begins, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.study.axes import Axis, axis_of

_DIGITS = 4
"""Significant digits of a number that is drawn from a range."""


class SearchRange(BaseModel):
    """A range of numbers: whole ones if both ends are, fractions otherwise.

    Attributes:
        low: the least.
        high: the most.
        log: whether factors count, as for a learning rate, and not differences.
    """

    model_config = ConfigDict(extra="forbid")

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> SearchRange:
        if not self.low < self.high:
            raise ValueError(f"low: {self.low} is not below high: {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("log: true needs low above 0")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def rounded(self, value: float) -> int | float:
        """Return a number of the range with as many digits as a run is given."""
        return value if self.is_whole else float(f"{value:.{_DIGITS}g}")


class SearchSettings(BaseModel):
    """How a study searches.

    Attributes:
        space: key of the recipe → a range, or a list of values; a name with several keys moves them together.
        first: points to begin with, such as the papers' values, by the names of `space`; the recipe's own values are
            always the very first.
        runs: trials of each method.
        hours: hours for the trials of each method, after which no trial begins.
        metric: name in the evaluations of the log without `eval_`; by default the task's headline metric.
        prune: whether a trial ends early that is below the median of the others at the same step.
    """

    model_config = ConfigDict(extra="forbid")

    space: Annotated[dict[str, SearchRange | list[Any] | dict[str, list[Any]]], Field(min_length=1)]
    first: list[dict[str, Any]] = []
    runs: PositiveInt | None = None
    hours: PositiveFloat | None = None
    metric: str | None = None
    prune: bool = True

    @model_validator(mode="after")
    def _has_a_budget(self) -> SearchSettings:
        if (self.runs is None) == (self.hours is None):
            raise ValueError("either runs or hours says when the search ends")
        return self

    @property
    def ranges(self) -> dict[str, SearchRange]:
        """The keys with a range."""
        return {name: values for name, values in self.space.items() if isinstance(values, SearchRange)}

    @property
    def choices(self) -> dict[str, Axis]:
        """The keys, or keys that move together, with a list of values."""
        return {
            name: axis_of(name, values) for name, values in self.space.items() if not isinstance(values, SearchRange)
        }

    @property
    def axes(self) -> dict[str, Axis]:
        """All names of the space; one of a range has no values."""
        return {name: self.choices.get(name) or axis_of(name, []) for name in self.space}

    def check(self) -> None:
        """Raise UserError for keys that are no recipe's, for lists that do not fit, and first points outside."""
        for name in self.ranges:
            if "." not in name:
                raise UserError(
                    f"search.space.{name}", "a key of the recipe with its section", quoted(name),
                    fix="such as training.learning_rate: {low: 1e-5, high: 3e-4, log: true}",
                )  # fmt: skip
        for axis in self.choices.values():
            axis.check("search.space")
        for point in self.first:
            for name, value in point.items():
                self.parameter(name, value)

    def settings(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return keys of the recipe with their values, of a trial's parameters: numbers, and places in lists."""
        found: dict[str, Any] = {}
        for name, value in parameters.items():
            if name in self.ranges:
                found[name] = self.ranges[name].rounded(value)
            else:
                found |= self.choices[name].settings(value)
        return found

    def point(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return names of the space with their values, of a trial's parameters."""
        return {
            name: self.ranges[name].rounded(value) if name in self.ranges else self.choices[name].values[value]
            for name, value in parameters.items()
        }

    def parameter(self, name: str, value: Any) -> Any:
        """Return the parameter of a value in the space: the number, or its place in the list.

        Raises:
            UserError: if it is not in the space.
        """
        where = f"search.first.{name}"
        if name not in self.space:
            raise UserError(where, f"one of {listed([*self.space], 20)}", quoted(name), why="the space has no such key")
        if (span := self.ranges.get(name)) is None:
            values = list(self.choices[name].values)
            if value not in values:
                raise UserError(where, f"one of {listed(list(map(str, values)), 20)}", quoted(value))
            return values.index(value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not span.low <= value <= span.high:
            raise UserError(where, f"a number from {span.low} to {span.high}", quoted(value))
        return value
