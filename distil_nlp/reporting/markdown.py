"""Tables in Markdown and for a terminal, and code blocks. A table is a list of rows, its head first."""

from __future__ import annotations

import re
from collections.abc import Sequence

TableCells = Sequence[Sequence[str]]


def drop_empty(rows: TableCells) -> list[list[str]]:
    """Return the table without rows and columns that are empty but for their names; [] if nothing is left."""
    head, *rest = rows
    rest = [row for row in rest if any(row[1:])]
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rest)]
    return [[row[i] for i in kept] for row in (head, *rest)] if rest else []


def markdown_table(rows: TableCells) -> str:
    """Return a Markdown table, with columns of numbers aligned to the right."""
    if not rows:
        return ""
    head, *rest = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    is_number = re.compile(r"[+−–\d]|$").match
    rule = ["---:" if all(map(is_number, column)) else "---" for column in zip(*rest, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rest))


def aligned_table(rows: TableCells, names: int = 1) -> str:
    """Return a table for a terminal, a line below its head, all but the first `names` columns aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([*map(str.ljust, row[:names], widths), *map(str.rjust, row[names:], widths[names:])] for row in rows)
    lines = ["  ".join(row).rstrip() for row in cells]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def escape_markdown(text: str) -> str:
    """Return one line of text that Markdown shows as it is. Pipes matter in tables alone, and are left to them."""
    line = re.sub(r"\s*[\r\n]\s*", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]#~]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def fence(code: str, language: str = "") -> str:
    """Return a code block with a fence longer than any run of backticks in the code."""
    ticks = "`" * max(3, longest_run(code) + 1)
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"


def longest_run(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
