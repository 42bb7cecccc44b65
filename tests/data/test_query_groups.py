"""Batches of whole queries: which rows they have, epoch after epoch, and what terms count of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from distil_nlp.data.query_groups import (
    GroupedOrder,
    evaluation_slots,
    packed,
    pair_positions,
    query_positions,
)
from distil_nlp.data.sampling import grouped_order
from distil_nlp.errors import UserError

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=20)


def labels(sizes, relevant=0):
    """Labels of queries of so many documents, mixed; one document of each is relevant."""
    rows = [[float(i == relevant), float(query)] for query, size in enumerate(sizes) for i in range(size)]
    return np.random.default_rng(0).permutation(rows)


def batches(slots, size):
    return [slots[start : start + size] for start in range(0, len(slots), size)]


@settings(deadline=None, max_examples=50)
@given(sizes=SIZES, group=st.integers(2, 6), more=st.integers(0, 5), epoch=st.integers(0, 3))
def test_each_batch_has_whole_queries_and_fillers_last(sizes, group, more, epoch):
    """Prevents a query in two batches, a query that an epoch leaves out, and a filler among the rows."""
    marks, size = labels(sizes), group + more
    order = GroupedOrder(marks, size, group, seed=1)
    slots = order(epoch)
    assert len(slots) == order.num_slots
    assert order.num_slots % size == 0
    found: dict[float, int] = {}
    for batch in batches(slots, size):
        rows = [row for row in batch if row < len(marks)]
        assert batch[: len(rows)] == rows
        assert len(set(rows)) == len(rows)
        queries, counts = np.unique(marks[rows, 1], return_counts=True)
        assert not found.keys() & set(queries)
        found |= dict(zip(queries.tolist(), counts.tolist(), strict=True))
    assert found == {float(query): min(size, group) for query, size in enumerate(sizes)}


def test_an_epoch_is_a_function_of_seed_and_number():
    """Prevents an order that a resumed run does not find again, the same documents each time, and a lost answer."""
    marks = labels([9, 3, 14, 9, 1, 9])
    order = GroupedOrder(marks, 8, 4, seed=3)
    assert order(5) == GroupedOrder(marks, 8, 4, seed=3)(5)
    assert order(5) != order(6)
    assert order(5) != GroupedOrder(marks, 8, 4, seed=4)(5)
    read = [{row for row in order(epoch) if row < len(marks) and marks[row, 1] == 2} for epoch in range(20)]
    assert len(set(map(frozenset, read))) > 10
    assert all(marks[list(rows), 0].max() == 1 for rows in read)
    assert set().union(*read) == set(np.flatnonzero(marks[:, 1] == 2))


def test_equal_queries_have_one_order_for_any_size_of_batch():
    """Prevents steps of other rows in two processes than in one of twice the batch."""
    marks = labels([4] * 12)
    orders = [[row for row in GroupedOrder(marks, size, 4, seed=3)(2) if row < len(marks)] for size in (4, 8, 16)]
    assert orders[0] == orders[1] == orders[2]
    assert GroupedOrder(marks, 16, 4, seed=3).num_slots == len(marks)


def test_without_shuffling_queries_keep_their_order():
    """Prevents a sequential strategy that shuffles."""
    marks = np.array([[0.0, query] for query in (3, 3, 1, 1, 2, 2)])
    assert GroupedOrder(marks, 4, 2, seed=3, shuffles=False)(7) == [0, 1, 2, 3, 4, 5, 6, 6]


@settings(deadline=None, max_examples=50)
@given(sizes=SIZES, size=st.integers(1, 7))
def test_an_evaluation_reads_each_row_once(sizes, size):
    """Prevents rows that are scored twice or never, and queries that are cut though they fit."""
    marks = labels(sizes)
    slots = evaluation_slots(marks, size)
    assert len(slots) % size == 0
    assert sorted(row for row in slots if row < len(marks)) == list(range(len(marks)))
    for query, count in enumerate(sizes):
        places = {place for place, batch in enumerate(batches(slots, size))
                  for row in batch if row < len(marks) and marks[row, 1] == query}  # fmt: skip
        assert len(places) == -(-count // size)


@given(sizes=st.lists(st.integers(1, 8), max_size=60))
def test_packing_loses_nothing_and_wastes_little(sizes):
    """Prevents batches above their size, and half-empty ones that could be one."""
    found = packed(sizes, 8)
    assert sorted(size for batch in found for size in batch) == sorted(sizes)
    assert all(sum(batch) <= 8 for batch in found)
    assert sum(sum(batch) <= 4 for batch in found) <= 1


def test_pairs_and_queries_are_counted_without_fillers():
    """Prevents a count of queries with one document, of documents without a label, and of what fills up a batch."""
    marks = np.array([[1, 5], [0, 5], [0.5, 5], [1, 2], [np.nan, 7], [0, 7], [1, 7], [1, 7], [0, 5]], dtype=float)
    fillers = np.array([False] * 7 + [True] * 2)
    assert query_positions(marks, fillers).tolist() == [0, 4]
    pairs = [divmod(place, len(marks)) for place in pair_positions(marks, fillers).tolist()]
    assert pairs == [(0, 1), (0, 2), (2, 1), (6, 5)]


def test_what_does_not_fit_is_refused(tmp_path):
    """Prevents queries in two batches, and a strategy without effect."""
    rows = [{"labels": [0.0, 1.0]}] * 4
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to="none")
    with pytest.raises(UserError, match="per_device_train_batch_size: expected 8 rows or more"):
        grouped_order(rows, args, 8)
    args.train_sampling_strategy = "group_by_length"
    with pytest.raises(UserError, match="expected random or sequential, where the documents of a query share a batch"):
        grouped_order(rows, args, 2)
