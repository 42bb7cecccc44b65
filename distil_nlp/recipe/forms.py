"""The two forms of a recipe's settings: short, as a person would write them, and complete, with all defaults.

Neither form needs valid settings: keys that the schema does not know, from another version, are passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from distil_nlp.recipe.sections import ObjectiveBase, Recipe, Section, TermSection, section_class


def concise(settings: Mapping[str, Any], schema: type[Recipe] = Recipe) -> dict[str, Any]:
    """Return the settings that differ from the defaults.

    Settings without a default stay, and so do sections that are switched on (`cache: {}`) and the weight of each term.
    Reading the result back gives the same recipe.

    Args:
        settings: a recipe as `Recipe.model_dump` or `results.json` has it.
        schema: the recipe's class, which knows terms of one's own. Without it they keep all their options.
    """
    return _without_defaults(settings, schema)


def complete(settings: Mapping[str, Any], schema: type[Recipe] = Recipe) -> dict[str, Any]:
    """Return the settings with all defaults filled in, as `Recipe.model_dump` has them.

    Args:
        settings: a recipe as its file has it.
        schema: the recipe's class, which knows terms of one's own.
    """
    return _with_defaults(settings, schema)


def _without_defaults(settings: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    short = {}
    for name, value in settings.items():
        field = section.model_fields.get(name) or (_OTHER_TERM if issubclass(section, ObjectiveBase) else None)
        inner = section_class(field.annotation) if field else None
        if inner:
            value = _in_sections(value, inner, _without_defaults)
        if field is None or field.is_required() or value != _short_default(field) or _is_weight(name, section):
            short[name] = value
    return short


_OTHER_TERM = FieldInfo(annotation=TermSection | None, default=None)
"""A term of one's own, as far as it is known without its code."""


def _with_defaults(settings: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    full = dict(settings)
    for name, field in section.model_fields.items():
        inner = section_class(field.annotation)
        if name not in full and not field.is_required():
            full[name] = _default(field)
        elif inner and name in full:
            full[name] = _in_sections(full[name], inner, _with_defaults)
    return full


def _in_sections(value: Any, section: type[Section], change: Callable[[Any, type[Section]], Any]) -> Any:
    """Return a section changed; of a list of sections, each one; other values as they are."""
    if isinstance(value, list):
        return [_in_sections(one, section, change) for one in value]
    return change(value, section) if isinstance(value, Mapping) else value


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return default.model_dump(mode="json") if isinstance(default, Section) else default


def _short_default(field: FieldInfo) -> Any:
    """Return the short form of a field's default, in which a section of defaults is empty."""
    default = field.get_default(call_default_factory=True)
    return {} if isinstance(default, Section) else default


def _is_weight(name: str, section: type[Section]) -> bool:
    return name == "weight" and issubclass(section, TermSection)
