"""A share of the training rows: nested, so that a larger one has all rows of a smaller one, and stratified by label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset


def keep_share(rows: Dataset, share: float, strata: Sequence[Hashable], seed: int) -> Dataset:
    """Return a share of the rows, at least one, in their own order.

    Args:
        rows: all rows.
        share: of them, above 0, at most 1.
        strata: the group of each row, such as its label; each gives its share, as far as whole rows allow.
        seed: of the order in which rows are taken; the same for all shares that are to be nested.
    """
    if share >= 1:
        return rows
    kept = share_order(strata, seed)[: rows_of_share(len(rows), share)]
    return rows.select(np.sort(kept)).flatten_indices()


def keep_labels(
    rows: Dataset, column: str, share: float, labelled: np.ndarray, strata: Sequence[Hashable], seed: int
) -> Dataset:
    """Return all rows, with a share of their labels, at least one, and null in place of the others.

    Args:
        rows: all rows.
        column: of the labels.
        share: of the labels that there are.
        labelled: the numbers of the rows that have a label.
        strata: the group of each of these; see `keep_share`.
        seed: likewise.
    """
    kept = {*labelled[share_order(strata, seed)[: rows_of_share(len(labelled), share)]]}

    def with_label(row: dict[str, Any], number: int) -> dict[str, Any]:
        return row if number in kept else {**row, column: None}

    return rows.map(with_label, with_indices=True, features=rows.features)


def rows_of_share(count: int, share: float) -> int:
    """Return the number of rows that are a share of others, at least one."""
    return max(round(share * count), 1)


def share_order(strata: Sequence[Hashable], seed: int) -> np.ndarray:
    """Return the numbers of all rows in an order of which each beginning has the groups in their proportion."""
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    members: dict[Hashable, list[int]] = defaultdict(list)
    for row in shuffled:
        members[strata[row]].append(row)
    place = np.empty(len(strata))
    for group in members.values():
        place[group] = (np.arange(len(group)) + 0.5) / len(group)
    return shuffled[np.argsort(place[shuffled], kind="stable")]
