"""Splits of a transfer set, and functions that split off a part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset

from distil_nlp.errors import UserError, listed, quoted

COUNTS = ("cut", "aligned", "words", "matched")
"""Columns of rows that several tokenizers read, which are summed: whether the text was cut, how many of the student's
tokens have partners, and how many words have a label or may be masked, and have an equal."""


@dataclass
class Split:
    """The rows for training, for checkpoint selection and for the reported scores.

    Attributes:
        train: rows that the student (and a fine-tuned teacher) is trained on.
        selection: rows for the choice of the best checkpoint and for early stopping; None without selection. No score
            is reported on them.
        evaluation: name → rows that scores are reported on.
        repeated: name → number of its rows whose text is a training row's; None if nobody counted.
        held_out: name of the split that was made of training rows, for data that has none to score on.
        texts: name → the columns of text of its rows, as the data has them; empty where rows are not the data's own.
        train_texts: likewise, of the training rows; None where these are not the data's own.
        row_numbers: name → the numbers of its rows in the data, from 0; likewise.
        price: sum of the prices of the answers to all these rows; None where the data does not tell.
        cut: `train`, `selection` and the names of evaluation → number of rows whose text was cut, so that models of
            several tokenizers read the same; empty for one tokenizer.
        partners: by the same names, counts of the student's `tokens`, of those `aligned` with tokens of the first other
            tokenizer, and of `words` that have a label or may be masked and those `matched`, if rows have any.
    """

    train: Any
    selection: Any | None
    evaluation: dict[str, Any]
    repeated: dict[str, int] | None = None
    held_out: str | None = None
    texts: dict[str, Any] = field(default_factory=dict)
    train_texts: Any | None = None
    row_numbers: dict[str, list[int]] = field(default_factory=dict)
    price: float | None = None
    cut: dict[str, int] = field(default_factory=dict)
    partners: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def scored(self) -> dict[str, int]:
        """The number of rows that scores are of, by split: the data's own, however many windows a row is cut into."""
        return {name: len(self.texts.get(name, rows)) for name, rows in self.evaluation.items()}


def without_counts(split: Split) -> Split:
    """Return a split whose columns of counts, which rows of several tokenizers have, are summed and gone.

    A stream has none, and may not know its columns.
    """
    named = {"train": split.train, "selection": split.selection, **split.evaluation}
    known = {name: rows for name, rows in named.items() if rows is not None and "cut" in (rows.column_names or ())}
    if not known:
        return split
    columns = [name for name in COUNTS if name in split.train.column_names]
    totals = {
        name: {column: int(np.sum(rows[column][:])) for column in columns} | {"tokens": int(np.sum(rows["length"][:]))}
        for name, rows in known.items()
    }
    without = {name: rows.remove_columns(columns) for name, rows in known.items()}
    return replace(
        split,
        train=without["train"],
        selection=without.get("selection"),
        evaluation={name: without[name] for name in split.evaluation},
        cut={name: own.pop("cut") for name, own in totals.items()},
        partners=totals,
    )


def named_split(splits: Any, name: str) -> Any:
    """Return a split by its name.

    Raises:
        UserError: if it does not exist.
    """
    if name not in splits:
        raise UserError(
            "data",
            f"a split {quoted(name)}",
            listed(splits),
            why="there are no rows to read",
            fix="set data.train_split or data.evaluation_splits",
        )
    return splits[name]


def split_off(rows: Dataset, fraction: float, seed: int, purpose: str) -> tuple[Dataset, Dataset]:
    """Return (the rest, a fraction of the rows drawn by seed), with at least one row each.

    Raises:
        UserError: if there are fewer than two rows.
    """
    if len(rows) < 2:
        raise UserError(
            None,
            f"enough rows to split off a fraction of {fraction:g} for {purpose}",
            str(len(rows)),
            why="nothing would be left",
            fix="use more data",
        )
    size = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
    parts = rows.train_test_split(test_size=size, seed=seed, shuffle=True)
    return parts["train"], parts["test"]


def is_held_out(text: str, fraction: float) -> bool:
    """Return True if a document belongs to the held-out fraction.

    A hash of its content decides, so that no pass over the data is needed and equal documents are on the same side.
    """
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return number < fraction * 2**64


def limit_rows(rows: Dataset, limit: int | None, seed: int) -> Dataset:
    """Return at most `limit` rows, drawn by seed, because files are often sorted."""
    if limit is None or limit >= len(rows):
        return rows
    return _drawn(rows, limit, seed).flatten_indices()


def row_numbers(count: int, limit: int | None, seed: int) -> list[int]:
    """Return the numbers of the rows that `limit_rows` takes of `count` rows, in its order."""
    numbers = range(count)
    if limit is None or limit >= count:
        return [*numbers]
    return _drawn(Dataset.from_dict({"row": numbers}), limit, seed)["row"][:]


def _drawn(rows: Dataset, limit: int, seed: int) -> Dataset:
    return rows.shuffle(seed=seed).select(range(limit))
