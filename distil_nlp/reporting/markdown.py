"""Tables in Markdown and for a terminal, and code blocks. A table is a list of rows, its head first."""

from __future__ import annotations

import re
import shutil
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


def terminal_table(rows: TableCells, names: int = 1) -> str:
    """Return `aligned_table`, folded to the width of the terminal: columns that do not fit follow below, names again.

    In a file or pipe it is 80 columns wide, as whoever reads it later has them, unless `COLUMNS` says otherwise.
    """
    width = terminal_width()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    parts: list[list[int]] = []
    room = 0
    for column in range(names, len(widths)):
        room -= widths[column] + 2
        if room < 0 or not parts:
            parts.append([])
            room = width - sum(widths[:names]) - 2 * (names - 1) - widths[column] - 2
        parts[-1].append(column)
    return "\n\n".join(aligned_table(_columns(rows, names, part), names) for part in parts)


def terminal_width() -> int:
    """Return the columns of the terminal, or of `COLUMNS`; 80 for a file or pipe."""
    return shutil.get_terminal_size(fallback=(80, 24)).columns


def _columns(rows: TableCells, names: int, part: Sequence[int]) -> list[list[str]]:
    """Return the columns of names and some others, without rows that are empty in these."""
    head, *rest = [[*row[:names], *(row[i] for i in part)] for row in rows]
    return [head, *(row for row in rest if any(row[names:]))]


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
