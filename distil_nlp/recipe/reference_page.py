"""The page `docs/recipe_reference.md`, made from the schema: `python -m distil_nlp.recipe.reference_page <path>`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe.json_schema import recipe_schema
from distil_nlp.recipe.yaml_file import dump_yaml

_INTRODUCTION = """# Recipe reference

Every key of a recipe, with its type and default. `make docs-schema` makes this page from the schema
(`distil_nlp/recipe/sections/`) and the docstrings of the terms; [recipes.md](recipes.md) says what the keys do
together, and what is refused.
"""
_OBJECTIVE = """The loss is the sum of the terms that are named here, each times its `weight`. A term that is
left out, null, or of weight 0 is not computed. A term of your own is named here too, and its file in `plugins`
([own_terms.md](own_terms.md)).
"""
_TERM_KEYS = ("weight", "schedule")
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
_WORDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def reference_page() -> str:
    """Return the page: a table for each section, in the order of the schema, and one for each term."""
    schema = recipe_schema(several=False)
    parts = [_INTRODUCTION, *_table(schema, schema)]
    for name, field in schema["properties"].items():
        if name != "objective":
            parts += _sections(name, field, schema)
        else:
            parts += [f"## `{name}`\n", _OBJECTIVE, *_terms(schema)]
    return "\n".join(parts)


def _sections(path: str, field: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield the headings and tables of a section and of those within it; nothing for a key that is no section."""
    names = _references(field)
    for name in names:
        section = schema["$defs"][name]
        which = ", each of a list" if len(names) > 1 and name in _listed(field) else ""
        yield f"{'#' * min(2 + path.count('.'), 4)} `{path}`{which}\n"
        yield f"{section.get('description', '')}\n"
        yield from _table(section, schema)
        for key, inner in section["properties"].items():
            yield from _sections(f"{path}.{key}", inner, schema)


def _terms(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the list of all terms, and a heading and a table for each."""
    terms = schema["$defs"]["ObjectiveSection"]["properties"]
    yield "| term | per row |\n| --- | --- |"
    yield from (f"| [`{name}`](#{name}) | {_cell(_after_name(term['description']))} |" for name, term in terms.items())
    yield "\nEvery term has:\n"
    yield from _table(_only(schema["$defs"]["hard_label"], _TERM_KEYS), schema)
    yield "`schedule` has `weight`, and any other number that the term can change, each a change:\n"
    yield from _table(schema["$defs"]["Change"], schema)
    for name in terms:
        definition = schema["$defs"][name]
        yield f"### `{name}`\n"
        yield f"{_after_name(definition['description'])}\n"
        paper = TERMS[name].paper
        yield f"In the model card: {TERMS[name].formula}" + (f"; arXiv:{paper}.\n" if paper else ".\n")
        options = [key for key in definition["properties"] if key not in _TERM_KEYS]
        if options:
            yield from _table(_only(definition, options), schema)


def _only(section: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a section with some of its keys."""
    return {**section, "properties": {key: section["properties"][key] for key in keys}}


def _after_name(description: str) -> str:
    """Return a term's description without its name in front."""
    return description.partition(": ")[2]


def _table(section: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield the table of a section's keys."""
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for name, field in section["properties"].items():
        default = "required" if name in section.get("required", ()) else _default(field)
        cells = (f"`{name}`", _type(field, schema), default, field.get("description", ""))
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""


def _cell(text: str) -> str:
    """Return a cell whose bars do not end it."""
    return text.replace("|", r"\|").replace("\n", " ")


def _default(field: dict[str, Any]) -> str:
    """Return a default as a recipe would have it; nothing for a section that is there anyway."""
    if "default" not in field:
        return "required, with exceptions"
    value = field["default"]
    if isinstance(value, dict):
        return "" if _references(field) else "`{}`"
    return f"`{value}`" if isinstance(value, str) else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    return dump_yaml(value).strip().removesuffix("\n...") if isinstance(value, float) else json.dumps(value)


def _references(field: dict[str, Any]) -> list[str]:
    """Return the names of the sections in a field, those within lists too."""
    inner = [*field.get("anyOf", ()), *([field["items"]] if "items" in field else ())]
    found = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
    return list(dict.fromkeys(found + [name for one in inner for name in _references(one)]))


def _listed(field: dict[str, Any]) -> set[str]:
    """Return the names of the sections in a field's lists."""
    lists = [one["items"] for one in (field, *field.get("anyOf", ())) if "items" in one]
    return {name for one in lists for name in _references(one)}


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a type in words: integer ≥ 1, list of text, `a` or `b`."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one, schema) for one in field["anyOf"]))
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        items = _type(field["items"], schema)
        return f"list of ({items})" if "anyOf" in field["items"] else f"list of {items}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"map of names to {_type(values, schema)}" if isinstance(values, dict) else "map"
    return " ".join([_WORDS[field["type"]], *_bounds(field)])


def _bounds(field: dict[str, Any]) -> list[str]:
    found = [words.format(_yaml(field[key])) for key, words in _BOUNDS.items() if key in field]
    return [", ".join(found)] if found else []


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference_page(), encoding="utf-8")
