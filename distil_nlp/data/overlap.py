"""Evaluation rows that are training rows too: counted, said, and refused where most of a split is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_MOST = 0.9
"""Share of a split's text from which on it is the training split, not another one that resembles it."""
_DISTINCT = 0.5
"""Share of different texts below which texts repeat anyway, in any split, so that equal ones are no copies."""
_BETWEEN = pa.scalar("\x1f", pa.large_string())
"""Separator of the texts of a pair."""
_STREAMED_ROWS = 20_000
"""Rows of a stream that are looked at."""


def scored_splits(splits: Any, names: Sequence[str], train_split: str, *, are_named: bool) -> list[str]:
    """Return the splits that scores are reported on, each once.

    Args:
        are_named: whether a recipe names them; splits by default leave out the one that is trained on.

    Raises:
        UserError: if the training split is among the named ones.
    """
    if are_named and train_split in names:
        others = [name for name in splits if name != train_split]
        raise UserError(
            "data.evaluation_splits",
            "splits that are not trained on",
            f"{train_split}, the training split",
            why="scores on rows that were learnt say nothing of new ones",
            fix=f"name another one ({', '.join(others)})" if others else KEPT_ROWS,
        )
    return [name for name in dict.fromkeys(names) if name != train_split]


KEPT_ROWS = "leave it out: data.test_share of the rows are kept for scoring then"
"""What to do where there is no other split."""


def training_rows_among(
    train: Any, others: Mapping[str, Any], columns: Sequence[str], train_split: str, *, by_length: bool = False
) -> dict[str, int]:
    """Return how many rows of each split have the texts of a training row; a warning is logged if there are any.

    Spaces around a text, and blank rows, do not count. Of a stream the first rows are looked at.

    Args:
        train: rows of the training split.
        others: name → rows of an evaluation split.
        columns: the columns of text.
        by_length: weigh rows by their characters: documents may be headings, or lines that are common.

    Raises:
        UserError: if most of a split is.
    """
    texts = {name: pa.chunked_array(_texts(rows, columns), pa.large_string()) for name, rows in others.items()}
    if not texts:
        return {}
    known = _known_texts(train, columns, pa.chunked_array([part for text in texts.values() for part in text.chunks]))
    return {name: _weighed(text, known, name, train_split, by_length) for name, text in texts.items()}


def _known_texts(train: Any, columns: Sequence[str], wanted: pa.ChunkedArray) -> pa.Array:
    """Return which of the wanted texts occur in the training rows, blank ones aside."""
    wanted, found = pc.unique(wanted), set()
    for part in _texts(train, columns):
        found.update(pc.unique(part.filter(pc.is_in(part, value_set=wanted))).to_pylist())
    return pa.array(list(found - {""}), pa.large_string())


def _texts(rows: Any, columns: Sequence[str]) -> Iterator[pa.Array]:
    """Yield the stripped texts of rows, those of a pair joined, batch by batch; "" for a blank row."""
    rows = rows if isinstance(rows, Dataset) else rows.take(_STREAMED_ROWS)
    for table in rows.select_columns(list(columns)).with_format("arrow").iter(batch_size=10_000):
        stripped = [pc.utf8_trim_whitespace(_as_text(table[name])) for name in columns]
        joined = pc.binary_join_element_wise(*stripped, _BETWEEN, null_handling="replace")
        yield pc.utf8_trim(joined, _BETWEEN.as_py()).combine_chunks()


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text, words joined by spaces; one of another type as blank rows.

    Such a column is refused when it is tokenised.
    """
    if pa.types.is_list(column.type) and _is_text(column.type.value_type):
        column = pc.binary_join(pc.cast(column, pa.list_(pa.string())), " ")  # words
    is_text = _is_text(column.type)
    return pc.cast(column if is_text else pa.chunked_array([pa.nulls(len(column))]), pa.large_string())


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _are_distinct(texts: pa.ChunkedArray) -> bool:
    return len(pc.unique(texts)) >= _DISTINCT * len(texts)


def _weighed(texts: pa.ChunkedArray, known: pa.Array, name: str, train_split: str, by_length: bool) -> int:
    """Return how many texts are known; log a warning, or raise, if there are any."""
    is_known = pc.is_in(texts, value_set=known).to_numpy()
    count, rows = int(is_known.sum()), len(is_known)
    weights = pc.utf8_length(texts).to_numpy() if by_length else np.ones(rows)
    share = float(weights[is_known].sum() / max(weights.sum(), 1))
    found = f"{count:,} of {rows:,} rows of {name} ({share:.1%}{' of its text' if by_length else ''})"
    if share >= _MOST and _are_distinct(texts):
        raise UserError(
            "data.evaluation_splits",
            f"rows in {name} that are not in {train_split}",
            f"{found} with the text of a row of {train_split}",
            why="scores on rows that were learnt say nothing of new ones",
            fix="name another split, or take these rows out of one of the two",
        )
    if count:
        logger.warning(f"{found} have the text of a row of {train_split}: on new rows scores may be lower")
    return count
