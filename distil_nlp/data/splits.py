"""Splits of a transfer set, and how a part is carved off."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from distil_nlp.errors import UserError


@dataclass
class Split:
    """What a run trains on, chooses by and reports.

    Attributes:
        train: what the student (and a fine-tuned teacher) sees.
        selection: for best-checkpoint choice and early stopping; None where nothing is chosen. No score
            is reported on it.
        evaluation: name → rows that scores are reported on.
    """

    train: Any
    selection: Any | None
    evaluation: dict[str, Any]


def named_split(splits: Any, name: str) -> Any:
    """A split by its name.

    Raises:
        UserError: naming the splits that there are.
    """
    if name not in splits:
        raise UserError(
            "data",
            f"a split {name!r}",
            ", ".join(splits),
            why="there is nothing to read",
            fix="set data.train_split or data.evaluation_splits",
        )
    return splits[name]


def split_off(rows: Dataset, share: float, seed: int, what: str) -> tuple[Dataset, Dataset]:
    """(rest, carved): a share of rows, drawn by seed; at least one row on either side.

    Raises:
        UserError: if there are fewer than two rows.
    """
    if len(rows) < 2:
        raise UserError(
            None,
            f"rows enough to set a share of {share:g} aside for {what}",
            f"{len(rows)}",
            why="nothing would be left",
            fix="give more data",
        )
    size = min(max(round(share * len(rows)), 1), len(rows) - 1)
    parts = rows.train_test_split(test_size=size, seed=seed, shuffle=True)
    return parts["train"], parts["test"]


def is_held_out(text: str, share: float) -> bool:
    """Whether a document belongs to the held-out share, by its content: needs no pass over the data, and equal
    documents fall on the same side."""
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return number < share * 2**64


def limit_rows(rows: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most `limit` rows, drawn by seed, because files are often sorted."""
    if limit is None or limit >= len(rows):
        return rows
    return rows.shuffle(seed=seed).select(range(limit)).flatten_indices()
