"""`training:` takes any field of `TrainingArguments`; here its names and types are checked without building one."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import typing
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import TrainingArguments


def training_mistakes(where: str, fields: dict[str, Any]) -> list[str]:
    """What is wrong with a dict of training fields: one line per mistake, empty if nothing is."""
    types = training_types()
    mistakes = []
    for name, value in fields.items():
        if name not in types:
            near = difflib.get_close_matches(str(name), types, 1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else "; see transformers.TrainingArguments"
            mistakes.append(f"{where}.{name}: unknown key{hint}")
            continue
        wrong = _type_mistake(types[name], value)
        if wrong:
            mistakes.append(f"{where}.{name}: expected {wrong} / got {value!r}")
    return mistakes


def training_types() -> dict[str, Any]:
    """Field name → type of `TrainingArguments` in the installed transformers."""
    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainingArguments) if field.init}


def _type_mistake(kind: Any, value: Any) -> str | None:
    if value is None:
        return None
    try:
        adapter = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except TypeError:  # a dataclass: pydantic does not take a config beside its own
        adapter = TypeAdapter(kind)
    strict = bool({int, float, bool} & {kind, *typing.get_args(kind)}) and str not in typing.get_args(kind)
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    try:
        adapter.validate_python(value, strict=strict)
    except ValidationError as error:
        wanted = [one["msg"].removeprefix("Input should be ") for one in error.errors(include_url=False)]
        return " or ".join(dict.fromkeys(text[:1].lower() + text[1:] for text in wanted))
    if typing.get_args(kind) and str in typing.get_args(kind) and isinstance(value, str):
        return _enum_mistake(kind, value)
    return None


def _enum_mistake(kind: Any, value: str) -> str | None:
    """transformers writes `IntervalStrategy | str`: a string must still be one of the enumeration's."""
    for member in typing.get_args(kind):
        if isinstance(member, type) and issubclass(member, enum.Enum):
            values = [str(one.value) for one in member]
            if value not in values:
                near = [one for one in values if one.startswith(value)] or difflib.get_close_matches(value, values)
                return f"one of {', '.join(near[:4] if near else values)}"
    return None
