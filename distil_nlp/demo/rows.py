"""Rows of the data that a page offers as examples, where the run shows its rows."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from distil_nlp.demo.modes import Mode
from distil_nlp.results import RunResults

_COUNT, _LONGEST = 3, 400
_FILE = "predictions.parquet"
_COLUMNS = {"text": "text", "text_pair": "text_pair"}
"""Field of a page → column; pages of other fields have invented examples."""


def rows_to_type(run: RunResults, mode: Mode) -> tuple[tuple[str, ...], ...]:
    """Return the texts of a few short evaluation rows; none where the run does not show or keep them.

    Args:
        run: whose `predictions.parquet` has the rows.
        mode: with the fields that they fill.
    """
    path, names = run.folder / _FILE, [_COLUMNS.get(field.name) for field in mode.fields]
    if not run.get("recipe.evaluation.show_rows") or None in names or mode.needs_mask or not path.is_file():
        return ()
    if not set(names) <= set(pq.read_schema(path).names):
        return ()
    columns = pq.read_table(path, columns=names).to_pydict()
    rows = (tuple(map(_text, row)) for row in zip(*(columns[name] for name in names), strict=True))
    short = [row for row in rows if all(0 < len(text) <= _LONGEST for text in row)]
    return tuple(short[:: max(1, len(short) // _COUNT)][:_COUNT])


def _text(value: Any) -> str:
    """Return a text, or the text of a list of words."""
    return " ".join(value) if isinstance(value, list) else value or ""
