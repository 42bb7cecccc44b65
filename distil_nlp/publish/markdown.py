"""Pieces of Markdown that hold whatever values come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from distil_nlp.publish.privacy import last_component
from distil_nlp.publish.sources import hub_id


def code(value: Any) -> str:
    """Inline code on one line, whatever is in it."""
    text = " ".join(str(value).split())
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(text: str, language: str) -> str:
    """A code block that its text cannot end."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without its empty columns and rows, numbers to the right; "" if nothing is left. The first column names
    the rows."""
    rows = [row for row in rows if any(row[1:])]
    kept = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    if not rows:
        return ""
    rule = ["---:" if all(re.match(r"[+−\d]|$", row[i]) for row in rows) else "---" for i in kept]
    cells = [[row[i].replace("|", "\\|") for i in kept] for row in (header, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:]))


def model_link(name: str | None) -> str:
    """A link to the Hub where the model is there, else its path's last component."""
    if hub_id(name):
        return f"[{name}](https://huggingface.co/{name})"
    return code(last_component(name)) if name else ""


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
