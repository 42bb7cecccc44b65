"""A block of `results.json`, and the names of its keys."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Metric = Annotated[str, "metric"]
SplitName = Annotated[str, "split"]
ModelName = Annotated[str, "model"]
Term = Annotated[str, "term"]
FileName = Annotated[str, "file"]
"""Names of keys, which the schema page shows as <metric>, <split>, <model>, <term> and <file>."""

Number = float | None
"""A measured number; null stands for NaN or infinity, which JSON does not have."""
MetricValues = dict[Metric, Number]


def described(meaning: str, *, absent: str = "", null: str = "") -> Any:
    """Return a field with its meaning.

    Args:
        meaning: the quantity and its unit.
        absent: the case in which the key is missing; empty for a key that every file has.
        null: the case in which the value is null, other than a number that is not finite.
    """
    text = " ".join(filter(None, [meaning, absent and f"Absent {absent}.", null and f"Null {null}."]))
    default: Any = None if absent else ...
    extra: dict[str, Any] = {"meaning": meaning, "absent": absent, "null": null}
    return Field(default, description=text, json_schema_extra=extra)


class Block(BaseModel):
    """A block of `results.json`. Types are strict, and unknown keys are mismatches."""

    model_config = ConfigDict(extra="forbid", strict=True)
