"""Docstrings of sections and terms, read as documentation of a recipe's keys."""

from __future__ import annotations

import inspect
import re

from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe.sections import Section, WeightSchedule

_BLOCK = re.compile(r"^(Attributes|Args|Raises|Reference):(.*)$")
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.+)$")
_ELSEWHERE = re.compile(r"see `\w+`\.?$")
"""A description that is another class's."""


def text_of(described: type) -> str:
    """Return what a class's docstring says before its arguments, one line a paragraph; "" without one."""
    lines = ((described.__doc__ and inspect.getdoc(described)) or "").splitlines()
    end = next((number for number, line in enumerate(lines) if _BLOCK.match(line)), len(lines))
    return "\n\n".join(" ".join(part.split()) for part in "\n".join(lines[:end]).strip().split("\n\n"))


def keys_of(section: type[Section]) -> dict[str, str]:
    """Return the description of each key of a section."""
    if section.__name__ in TERMS:
        return _inherited(TERMS[section.__name__]) | {"schedule": "changes of its numbers over training"}
    changes = dict.fromkeys(section.model_fields, "change of this number; constant if null.")
    return (changes if issubclass(section, WeightSchedule) else {}) | _inherited(section)


def _inherited(described: type) -> dict[str, str]:
    """Return the entries of a class's docstring, or of the nearest base's that has one; "see …" is looked up there."""
    found: dict[str, str] = {}
    for base in reversed(described.__mro__):
        entries = _entries((base.__doc__ and inspect.cleandoc(base.__doc__)) or "")
        found |= {name: text for name, text in entries.items() if not (name in found and _ELSEWHERE.fullmatch(text))}
    return found


def _entries(docstring: str) -> dict[str, str]:
    """Return name → description of the arguments and attributes in a docstring."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if block := _BLOCK.match(line):
            inside, names = block[1] in ("Attributes", "Args"), []
        elif inside and (entry := _ENTRY.match(line)):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif inside and line.startswith(" " * 8):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
