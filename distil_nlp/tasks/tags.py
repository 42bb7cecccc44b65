"""`Tags`: the tags of words, and the entities that they make: BIO tags begin with B- or I-, others are classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

OUTSIDE = "O"
"""The tag of a word that is in no entity."""
_PREFIXES = ("B-", "I-")
_OTHER_PREFIXES = ("E-", "S-", "L-", "U-")
"""Prefixes of IOBES and BILOU."""


@dataclass(frozen=True)
class Tags:
    """The tags of a data set, in the order of their ids.

    Attributes:
        names: names of the tags; numbers where the data has no names.
    """

    names: tuple[str, ...]

    @cached_property
    def are_entities(self) -> bool:
        """True if all tags are O, or B- or I- and a type, with one of these at least."""
        named = [name for name in self.names if name != OUTSIDE]
        return bool(named) and all(name.startswith(_PREFIXES) and len(name) > 2 for name in named)

    @cached_property
    def other_prefixes(self) -> list[str]:
        """The tags of another scheme than BIO (IOBES, BILOU), where all tags but O have a prefix of such a scheme."""
        named = [name for name in self.names if name != OUTSIDE]
        known = all(name.startswith(_PREFIXES + _OTHER_PREFIXES) and len(name) > 2 for name in named)
        return [name for name in named if name.startswith(_OTHER_PREFIXES)] if known else []

    @cached_property
    def units(self) -> tuple[str, ...]:
        """What scores are taken of: the types of entities in the order of their tags, or the tags themselves."""
        if not self.are_entities:
            return self.names
        return tuple(dict.fromkeys(type_of(name) for name in self.names if name != OUTSIDE))

    @cached_property
    def without_begin(self) -> list[str]:
        """The types that have a tag I-, and none B- with which an entity could begin."""
        begun = {type_of(name) for name in self.names if name.startswith("B-")}
        return [unit for unit in self.units if unit not in begun] if self.are_entities else []

    @cached_property
    def _begin_of_inside(self) -> np.ndarray:
        """For each tag I- the number of the tag B- of its type, and −1 for other tags."""
        begins = {type_of(name): number for number, name in enumerate(self.names) if name.startswith("B-")}
        return np.array([begins.get(type_of(name), -1) if name.startswith("I-") else -1 for name in self.names])

    def repaired(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """Return the tags of a sentence, in which each I- that continues no entity of its type is a B-, and how many.

        This makes IOB2 of IOB1, where entities begin with I- unless they follow one of their type. Tags without
        prefixes, and I- behind a word whose tag is not known, stay as they are.

        Args:
            ids: numbers of the tags; −100 for a word without one.
        """
        if not self.are_entities:
            return list(ids), 0
        fixed, changed = [], 0
        before: str | None = ""
        for number in ids:
            begin = int(self._begin_of_inside[number]) if number >= 0 else -1
            if begin >= 0 and before not in (type_of(self.names[number]), None):
                number, changed = begin, changed + 1
            fixed.append(number)
            before = type_of(self.names[number]) if number >= 0 else None  # "" for O
        return fixed, changed


def type_of(name: str) -> str:
    """Return the type of entity of a tag with a prefix, as seqeval reads it; "" for O."""
    return name[1:].strip("-")
