"""The JSON schema of recipes, for editors: `python -m distil_nlp.recipe.json_schema <path>` writes the shipped one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe.docstrings import keys_of, text_of
from distil_nlp.recipe.sections import Recipe, Section, section_class

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
FILLED_IN = {"Recipe": "objective", "TeacherSection": "name"}
"""Required keys that a recipe may leave out, because others stand for them (`teacher.self`, `teacher.columns`)."""


def recipe_schema(several: bool = True) -> dict[str, Any]:
    """Return the schema: every key with its type, default and description.

    Terms of one's own are allowed where the recipe names `plugins`. Fields of `training` and `teacher.finetune` are not
    listed: they are those of the installed version of transformers.

    Args:
        several: let `data` be a list too, for several tasks at once.
    """
    schema = Recipe.model_json_schema()
    sections = {section.__name__: section for section in _sections(Recipe)}
    _describe(schema, Recipe)
    for name, definition in schema["$defs"].items():
        _describe(definition, sections[name])
    schema["$defs"]["ObjectiveSection"].pop("additionalProperties")
    if several:
        _allow_several_tasks(schema)
    only_known = {"properties": {"objective": {"propertyNames": {"enum": list(TERMS)}}}}
    without_plugins = {"if": {"not": {"required": ["plugins"]}}, "then": only_known}
    return {"$schema": _DRAFT, "title": "A recipe of distil_nlp"} | _drop_titles(schema) | without_plugins


def _allow_several_tasks(schema: dict[str, Any]) -> None:
    """Let `data` be a list of sections, each with a name and with what its teacher has of its own."""
    definitions = schema["$defs"]
    teacher = {key: value for key, value in definitions["TeacherSection"].items() if key != "required"}
    own = {
        "task_name": {"type": "string", "description": "Name of the task, in logs and folders."},
        "teacher": teacher | {"description": "What its teacher has of its own."},
        "objective": {"$ref": "#/$defs/ObjectiveSection", "description": "Its own terms; null leaves one out."},
    }
    entry = definitions["DataSection"]
    definitions["TaskSection"] = entry | {"properties": entry["properties"] | own}
    several = {"type": "array", "items": {"$ref": "#/$defs/TaskSection"}, "minItems": 1}
    one = schema["properties"]["data"]
    told = f"{one['description'].rstrip('.')}; a list of sections for several tasks at once."
    by_type = {"if": {"type": "array"}, "then": several, "else": {"$ref": one["$ref"]}}
    schema["properties"]["data"] = by_type | {"type": ["object", "array"], "description": told}


def schema_text() -> str:
    """Return the schema as the file has it."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def _sections(section: type[Section]) -> set[type[Section]]:
    """Return a section and all sections within it."""
    found = {section}
    for field in section.model_fields.values():
        if (inner := section_class(field.annotation)) is not None:
            found |= _sections(inner)
    return found


def _describe(definition: dict[str, Any], section: type[Section]) -> None:
    """Put the docstring's descriptions in, and take required keys out that may be filled in."""
    definition.pop("description", None)
    if text := text_of(TERMS.get(section.__name__, section)):
        definition["description"] = text
    keys = keys_of(section)
    for name, key in definition["properties"].items():
        if name in TERMS:
            key["description"] = text_of(TERMS[name]).partition("\n")[0]
        elif name in keys:
            key["description"] = keys[name]
    required = [key for key in definition.pop("required", []) if key != FILLED_IN.get(section.__name__)]
    if required:
        definition["required"] = required


def _drop_titles(tree: Any) -> Any:
    """Return a schema without the titles that pydantic makes of the keys."""
    if isinstance(tree, list):
        return [_drop_titles(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    return {key: _drop_titles(value) for key, value in tree.items() if key != "title" or not isinstance(value, str)}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
