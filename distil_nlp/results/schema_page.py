"""The page `docs/results_schema.md`, made from the schema: `python -m distil_nlp.results.schema_page <path>`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from distil_nlp.results.predictions import COLUMNS, PREDICTIONS
from distil_nlp.results.schema import SCHEMA_VERSION, Block, Results

_INTRODUCTION = f"""# `results.json`

The file that every finished run leaves in its folder. Report, model card and study read it and measure nothing
themselves. `make docs-schema` makes this page from `distil_nlp/results/schema/`; schema version {SCHEMA_VERSION}.

Scores are fractions (0.837, not 83.7). NaN and infinity, which JSON does not have, are null. A key in angle brackets
stands for names: `<metric>` for `f1`, say. Readers should expect that any key may be missing: files
of older versions lack some.
"""
_PREDICTIONS = f"""## The rows: `{PREDICTIONS}`

Beside `results.json`: a line for each row of every evaluation split, for tasks with a prediction for each row. It has
the texts of the data, unless `evaluation.show_rows` is false. Some are in `report.html` too, and nowhere else: not in
`results.json`, `report.md` or the model card. Neither file is uploaded. `pandas.read_parquet` reads this one.

| column | meaning |
| --- | --- |
"""
_SIMPLE = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null", Any: "any"}


def schema_page() -> str:
    """Return the page: a table for each block, in the order of the file."""
    blocks = _paths_of_blocks()
    rows = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in COLUMNS.items())
    return "\n".join([_INTRODUCTION, *(_section(block, paths) for block, paths in blocks.items()), _PREDICTIONS + rows])


def _paths_of_blocks() -> dict[type[Block], list[str]]:
    """Return each block with every path at which it occurs, depth first."""
    blocks: dict[type[Block], list[str]] = {}

    def visit(block: type[Block], path: str) -> None:
        blocks.setdefault(block, []).append(path)
        for name, field in block.model_fields.items():
            for inner, rest in _blocks_in(field.annotation):
                visit(inner, f"{path}.{name}{rest}".removeprefix("."))

    visit(Results, "")
    return blocks


def _blocks_in(kind: Any) -> list[tuple[type[Block], str]]:
    """Return the blocks inside a type, each with the end of its path: `.<metric>` in a map, `[]` in a list."""
    if inspect.isclass(kind) and issubclass(kind, Block):
        return [(kind, "")]
    rest = ""
    if get_origin(kind) is dict:
        rest = f".{_key_name(get_args(kind)[0])}"
    elif get_origin(kind) is list:
        rest = "[]"
    return [(block, rest + end) for inner in get_args(kind) for block, end in _blocks_in(inner)]


def _section(block: type[Block], paths: list[str]) -> str:
    """Return a heading, the block's description, and its table of keys."""
    title = "Top level" if block is Results else ", ".join(f"`{path}`" for path in paths)
    head = ["| key | type | meaning | absent or null |", "| --- | --- | --- | --- |"]
    rows = [_row(name, field) for name, field in block.model_fields.items()]
    text = "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(block) or "").split("\n\n"))
    return "\n".join([f"## {title}", "", text, "", *head, *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    """Return a key's line of the table."""
    notes: Any = field.json_schema_extra
    missing = "; ".join(f"{word} {notes[word]}" for word in ("absent", "null") if notes[word])
    cells = (f"`{name}`", _type_name(field.annotation), notes["meaning"], missing)
    return f"| {' | '.join(map(_escape, cells))} |"


def _escape(cell: str) -> str:
    """Return a cell whose bars do not end it."""
    return cell.replace("|", r"\|")


def _type_name(kind: Any) -> str:
    """Return a type in words: integer, list of text, map of `<metric>` to number or null."""
    arguments = get_args(kind)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_type_name, arguments))
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if get_origin(kind) is list:
        return f"list of {_type_name(arguments[0])}"
    if get_origin(kind) is dict:
        return f"map of `{_key_name(arguments[0])}` to {_type_name(arguments[1])}"
    return "block"


def _key_name(kind: Any) -> str:
    """Return the placeholder of a map's keys, <metric> say."""
    return f"<{kind.__metadata__[0]}>" if get_origin(kind) is Annotated else "<name>"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_page(), encoding="utf-8")
