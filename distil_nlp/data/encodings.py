"""Encodings: the same text as tokens of several tokenizers, in columns of one row.

The student's own columns are `input_ids` and so on. Those of a teacher with another tokenizer begin with the name of
its encoding, such as `teacher_input_ids`; the name of the student's own encoding is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OWN = ""
"""The name of the encoding by the student's tokenizer."""
_SHARED = ("labels", "word_labels", "row_numbers", "cached_outputs")
"""Columns of a row or a batch that are the same whichever tokens are read."""
PARTNERED = "teacher_partners"
"""Key of a batch: set of the student's tokens → their partners among the tokens of the first further encoding."""
_IDS = "input_ids"


def encoding_name(number: int) -> str:
    """Return the name of a further encoding, by its number from 0: `teacher_`, `teacher2_`, `teacher3_`."""
    return f"teacher{number + 1 if number else ''}_"


def further_encodings(columns: Iterable[str]) -> list[str]:
    """Return the names of the encodings in a batch or a row, other than the student's own."""
    return sorted(name.removesuffix(_IDS) for name in columns if name.startswith("teacher") and name.endswith(_IDS))


def columns_of(names: Iterable[str], encoding: str) -> frozenset[str]:
    """Return the columns of an encoding that a model reads which takes these inputs."""
    return frozenset(f"{encoding}{name}" for name in names)


def batch_of(batch: Mapping[str, Any], encoding: str) -> Mapping[str, Any]:
    """Return what a model that reads an encoding is given of a batch: its tokens and row sets, and the labels."""
    if not encoding:
        return batch
    shared = {name: batch[name] for name in _SHARED if name in batch}
    return shared | {name.removeprefix(encoding): value for name, value in batch.items() if name.startswith(encoding)}


def rows_of(rows: Any, encoding: str) -> Any:
    """Return rows with the tokens of one encoding, by their usual names, and the labels; None as it is."""
    if not encoding or rows is None:
        return rows
    if not hasattr(rows, "rename_columns"):
        return [batch_of(row, encoding) for row in rows]
    own = {name: name.removeprefix(encoding) for name in rows.column_names if name.startswith(encoding)}
    kept = [*own, *(name for name in _SHARED if name in rows.column_names and name not in own.values())]
    return rows.select_columns(kept).rename_columns(own)
