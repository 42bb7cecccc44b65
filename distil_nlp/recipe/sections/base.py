"""What all sections of a recipe have in common, and types that several of them use."""

from __future__ import annotations

from functools import reduce
from operator import or_
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt

LayerNumbers = Annotated[list[NonNegativeInt], Field(min_length=1)]
NonEmpty = Annotated[str, Field(min_length=1)]
NonEmptyList = Annotated[list[NonEmpty], Field(min_length=1)]
SeedList = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
StudentLayers = Literal["every_other", "first", "last", "important", "random", "stack", "interpolate"] | LayerNumbers
FractionOrAll = Annotated[float, Field(gt=0, le=1)]
"""A fraction above 0, at most 1."""
TrainingFields = dict[str, Any]
"""Fields of `transformers.TrainingArguments`, which are checked when the recipe is loaded."""


class Section(BaseModel):
    """A strict section: an unknown key is a mistake, and so is a string, or true, in place of a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


def section_class(annotation: Any) -> type[Section] | None:
    """Return the section in an annotation such as `CacheSection | None` or `list[ShapeSection]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_class, get_args(annotation))), None)


def short_form(section: type[Section], key: str) -> BeforeValidator:
    """Return a validator that takes a section's most important value for the section."""
    return BeforeValidator(
        lambda value: value if isinstance(value, dict | Section | None) else {key: value},
        json_schema_input_type=reduce(or_, (section.model_fields[key].rebuild_annotation(), section, NoneType)),
    )


def _as_list(value: Any) -> Any:
    """Return a single name as a list of one."""
    return [value] if isinstance(value, str) else value


NAME_AS_LIST = BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None)
"""Takes a single name for a list of one."""
