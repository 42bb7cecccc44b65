"""Axes of a study: the keys of a recipe that a grid or a sweep varies, with their values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from distil_nlp.errors import UserError, quoted

_NAMES = {
    "temperature": "temperature T",
    "learning_rate": "learning rate",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "num_layers": "layers",
    "share": "share of the training rows",
    "labelled_share": "share of the labels",
    "max_train_rows": "training rows",
    "max_length": "length, tokens",
    "per_device_train_batch_size": "batch, rows",
}
"""Last part of a key → its name on an axis, with its unit."""
_SECTIONS = {"finetune": "the teacher’s fine-tuning"}
_STEPS_OF_LOG = 1.5
"""Largest ratio of the differences of values that are evenly spaced."""


@dataclass(frozen=True)
class Axis:
    """A key that is varied, or several that are varied together.

    Attributes:
        name: as the study's file has it.
        keys: key of the recipe → values.
    """

    name: str
    keys: Mapping[str, Sequence[Any]]

    @property
    def values(self) -> Sequence[Any]:
        """The values of the first key, which stand for all."""
        return next(iter(self.keys.values()))

    @property
    def title(self) -> str:
        """The name on a plot, such as `temperature T` or `weight of soft_target_kl`."""
        *sections, last = self.name.split(".")
        if not sections:
            return self.name
        if sections[0] == "objective" and last == "weight":
            return f"weight of {sections[-1]}"
        name = _NAMES.get(last, last.replace("_", " "))
        owner = _SECTIONS.get(sections[-1])
        return f"{name} of {owner}" if owner else name if last in _NAMES else f"{name} ({sections[-1]})"

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values are numbers above 0 that are spaced by factors rather than by differences."""
        numbers = sorted(value for value in self.values if isinstance(value, int | float) and value > 0)
        if len(numbers) < 3 or len(numbers) < len(self.values):
            return False
        steps = [b - a for a, b in pairwise(numbers)]
        factors = [math.log(b / a) for a, b in pairwise(numbers)]
        return min(steps) > 0 and max(steps) / min(steps) > _STEPS_OF_LOG * max(factors) / min(factors)

    def settings(self, index: int) -> dict[str, Any]:
        """Return the keys at one of the values."""
        return {key: values[index] for key, values in self.keys.items()}

    def check(self, where: str) -> None:
        """Raise UserError for keys that are no recipe's, and for values that are missing, repeated or unpaired."""
        for key, values in self.keys.items():
            if "." not in key:
                raise UserError(
                    f"{where}.{self.name}",
                    "a key of the recipe with its section, and a list of values",
                    quoted(key),
                    fix="such as training.learning_rate: [1e-5, 3e-5]; or a name with several keys that move together",
                )
            if not values or len(values) != len(self.values):
                raise UserError(
                    f"{where}.{self.name}",
                    f"{len(self.values) or 'some'} values" + f" for {key}" * (len(self.keys) > 1),
                    str(len(values)),
                    why="keys that move together have as many values each" if values else "nothing is varied",
                )
        described = list(map(repr, self.values))
        if len(set(described)) < len(described):
            raise UserError(f"{where}.{self.name}", "different values", quoted(list(self.values)))


def axis_of(name: str, values: Sequence[Any] | Mapping[str, Sequence[Any]]) -> Axis:
    """Return the axis of an entry of `grid` or `sweep`."""
    return Axis(name, values if isinstance(values, Mapping) else {name: values})
