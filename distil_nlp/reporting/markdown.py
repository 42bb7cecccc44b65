"""Rows of text, their heads first, as Markdown or aligned; and blocks of code."""

from __future__ import annotations

import re
from collections.abc import Sequence

TableCells = Sequence[Sequence[str]]


def drop_empty(rows: TableCells) -> list[list[str]]:
    """Without the rows and columns in which nothing stands but their names; [] if nothing is left."""
    head, *rest = rows
    rest = [row for row in rest if any(row[1:])]
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rest)]
    return [[row[i] for i in kept] for row in (head, *rest)] if rest else []


def markdown_table(rows: TableCells) -> str:
    """A table, columns of numbers to the right."""
    if not rows:
        return ""
    head, *rest = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    is_number = re.compile(r"[+−–\d]|$").match
    rule = ["---:" if all(map(is_number, column)) else "---" for column in zip(*rest, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rest))


def aligned_table(rows: TableCells, names: int = 1) -> str:
    """For a terminal, a line under the heads; all but the first `names` columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([*map(str.ljust, row[:names], widths), *map(str.rjust, row[names:], widths[names:])] for row in rows)
    lines = ["  ".join(row).rstrip() for row in cells]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def escape_markdown(text: str) -> str:
    """Return one line of text that Markdown shows as it is. Pipes matter in tables alone, and are left to them."""
    line = re.sub(r"\s*[\r\n]\s*", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]#~]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def fence(code: str, language: str = "") -> str:
    """A code block that its own text cannot close."""
    ticks = "`" * max(3, longest_run(code) + 1)
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"


def longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
