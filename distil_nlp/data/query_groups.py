"""Rows of a query that share a batch: which of them an epoch reads, in which batch, and what terms count of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from distil_nlp.errors import UserError

RELEVANCE, QUERY = range(2)
"""The columns of `labels` of ranked rows: relevance from 0 to 1, NaN without a label; number of the query, NaN in rows
that fill up a batch."""


class GroupedOrder:
    """The order of rows in which each batch has whole queries: (epoch) → numbers of rows, batch after batch.

    Queries are packed into batches of one size; what is left of a batch is filled up by numbers from the number of rows
    on, the last in their batch. The sizes in each batch are the same in all epochs, so that epochs are equally long;
    which query takes which place is drawn anew. Where all queries have as many documents, and a batch a multiple of
    that, the order does not depend on the size of a batch, and no place is filled up.

    Of a query with more documents than `group_size` an epoch reads as many, one of the most relevant and others by
    chance: a function of (seed, epoch, query).

    Args:
        labels: (rows, 2), see `RELEVANCE`.
        batch_size: rows of a batch.
        group_size: most rows of a query in an epoch.
        seed: of the draws.
        shuffles: False for queries in the order of the rows, as far as they fit.

    Attributes:
        num_slots: length of an epoch, rows that fill up included.

    Raises:
        UserError: if a query would not fit into a batch.
    """

    def __init__(self, labels: Any, batch_size: int, group_size: int, seed: int, shuffles: bool = True):
        check_batch_size(batch_size, group_size)
        labels = np.asarray(labels, dtype=np.float64).reshape(-1, 2)
        self.batch_size, self.group_size, self.seed, self.shuffles = batch_size, group_size, seed, shuffles
        self.num_rows, self._relevance = len(labels), np.nan_to_num(labels[:, RELEVANCE], nan=-1.0)
        self._groups = _rows_by_query(labels[:, QUERY])
        by_size = defaultdict(list)
        for number, group in enumerate(self._groups):
            by_size[min(len(group), group_size)].append(number)
        self._by_size = {size: np.array(numbers) for size, numbers in by_size.items()}
        sizes = [min(len(group), group_size) for group in self._groups]
        if shuffles:
            sizes = np.random.default_rng((seed, 0)).permutation(sizes).tolist()
        self._batches = packed(sizes, batch_size)
        self.num_slots = len(self._batches) * batch_size

    def __call__(self, epoch: int) -> list[int]:
        generator = np.random.default_rng((self.seed, epoch, 1))
        mixed = generator.permutation if self.shuffles else np.asarray
        places = {size: iter(mixed(numbers).tolist()) for size, numbers in self._by_size.items()}
        rows: list[int] = []
        for batch in self._batches:
            chosen = [row for size in batch for row in self._drawn(next(places[size]), epoch)]
            rows += chosen + [self.num_rows] * (self.batch_size - len(chosen))
        return rows

    def _drawn(self, number: int, epoch: int) -> list[int]:
        """Return the rows of a query that an epoch reads."""
        group = self._groups[number]
        if len(group) <= self.group_size:
            return group.tolist()
        generator = np.random.default_rng((self.seed, epoch, number, 2))
        order = generator.permutation(group)
        first = order[np.argmax(self._relevance[order])]  # a random one of the most relevant
        return np.sort([first, *order[order != first][: self.group_size - 1]]).tolist()


def evaluation_slots(labels: Any, batch_size: int) -> list[int]:
    """Return numbers of rows in which batches have whole queries, each row once; fillers are the last in their batch.

    A query of more rows than a batch is cut into parts.

    Args:
        labels: (rows, 2), see `RELEVANCE`.
        batch_size: rows of a batch.
    """
    labels = np.asarray(labels, dtype=np.float64).reshape(-1, 2)
    groups = _rows_by_query(labels[:, QUERY])
    parts = [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]
    by_size = defaultdict(list)
    for part in parts:
        by_size[len(part)].append(part)
    places = {size: iter(some) for size, some in by_size.items()}
    slots: list[int] = []
    for batch in packed([len(part) for part in parts], batch_size):
        rows = [row for size in batch for row in next(places[size]).tolist()]
        slots += rows + [len(labels)] * (batch_size - len(rows))
    return slots


def packed(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Return batches of sizes, each put where the least room is left that it fits into."""
    batches: list[list[int]] = []
    by_room: dict[int, list[int]] = defaultdict(list)
    for size in sizes:
        room = next((room for room in range(size, capacity + 1) if by_room[room]), None)
        if room is None:
            room, number = capacity, len(batches)
            batches.append([])
        else:
            number = by_room[room].pop()
        batches[number].append(size)
        by_room[room - size].append(number)
    return batches


def check_batch_size(batch_size: int, group_size: int) -> None:
    """Raise UserError if the documents of a query do not fit into a batch."""
    if batch_size < group_size:
        raise UserError(
            "training.per_device_train_batch_size",
            f"{group_size} rows or more, as many as data.group_size",
            str(batch_size),
            why="the documents of a query share a batch, so that their scores can be compared",
            fix=f"raise it, or lower data.group_size to {batch_size}",
        )


def query_positions(labels: np.ndarray, is_filler: np.ndarray) -> np.ndarray:
    """Return the position in the batch of the first row of each query that has two rows there, or more."""
    queries = np.where(is_filler, np.nan, labels[:, QUERY])
    _, first, counts = np.unique(queries[~np.isnan(queries)], return_index=True, return_counts=True)
    return np.sort(np.flatnonzero(~np.isnan(queries))[first[counts > 1]])


def pair_positions(labels: np.ndarray, is_filler: np.ndarray) -> np.ndarray:
    """Return flat positions (i · batch + j) of pairs of a query's rows, i of more relevance than j."""
    queries = np.where(is_filler, np.nan, labels[:, QUERY])
    relevance = labels[:, RELEVANCE]
    return np.flatnonzero((queries[:, None] == queries) & (relevance[:, None] > relevance))


def have_pairs(labels: Any) -> bool:
    """Return whether two documents of some query have unlike relevance."""
    labels = np.asarray(labels, dtype=np.float64).reshape(-1, 2)
    known = labels[~np.isnan(labels).any(1)]
    return len(np.unique(known, axis=0)) > len(np.unique(known[:, QUERY]))


def _rows_by_query(queries: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of the rows of each query, in the order in which queries first occur."""
    _, first, inverse = np.unique(queries, return_index=True, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(inverse.reshape(-1)))[:-1])
    return [groups[i] for i in np.argsort(first, kind="stable")]
