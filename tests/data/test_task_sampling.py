"""The order of rows of several tasks: shares of the draws, steps of one task, and a pure function of (seed, step)."""

import numpy as np
import pytest

from distil_nlp.data.row_sets import EPOCH, FILLER
from distil_nlp.data.sampling import EpochRows, EpochSampler
from distil_nlp.data.task_sampling import TASK, MultitaskCollator, TaskDraws, TaskRows, TaskSampler


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_shares_follow_rows_to_the_power(power):
    """Prevents a small task that is hardly seen, and a large one that is not seen more."""
    draws = TaskDraws((1000, 100, 10), power, seed=3)
    count = 40_000
    expected = np.array([1000.0, 100.0, 10.0]) ** power
    expected /= expected.sum()
    shares = np.array(draws.steps(count)) / count
    assert np.abs(shares - expected).max() < 4 * np.sqrt(0.25 / count)


def test_draws_depend_on_seed_and_step_alone():
    """Prevents another task at a step after a resume, and equal draws of all seeds."""
    one, again, other = (TaskDraws((5, 4), 0.75, seed) for seed in (1, 1, 2))
    steps = [one.task(step) for step in range(3000)]
    assert [again.task(step) for step in reversed(range(3000))] == steps[::-1]
    assert [other.task(step) for step in range(3000)] != steps
    for count in (0, 1, 1024, 1025, 3000):
        assert one.steps(count) == [steps[:count].count(0), steps[:count].count(1)]


def sampler_of(sizes, rows_per_step=4, multiple=2):
    orders = [lambda epoch, size=size: np.random.default_rng(epoch).permutation(size).tolist() for size in sizes]
    samplers = [EpochSampler(size, multiple, order) for size, order in zip(sizes, orders, strict=True)]
    return TaskSampler(samplers, TaskDraws(tuple(sizes), 0.75, seed=1), rows_per_step)


def test_each_step_is_of_one_task_and_each_epoch_of_a_task_has_its_rows_once():
    """Prevents batches of two tasks, and rows that are seen twice or never before a task starts over."""
    sizes = (7, 5)
    sampler = sampler_of(sizes)
    rows = TaskRows([EpochRows([{"x": (task, row)} for row in range(size)]) for task, size in enumerate(sizes)])
    assert len(sampler) == (2 + 2) * 4
    seen = {0: [], 1: []}
    for epoch in range(20):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert len(indices) == len(sampler)
        for start in range(0, len(indices), 4):
            step = rows.__getitems__(indices[start : start + 4])
            assert {row[TASK] for row in step} == {sampler.draws.task((epoch * len(sampler) + start) // 4)}
            seen[step[0][TASK]] += [(row[EPOCH], row["x"][1]) for row in step if not row[FILLER]]
            assert all(row["x"][0] == row[TASK] for row in step)
    for task, size in enumerate(sizes):
        whole = seen[task][: len(seen[task]) // size * size]
        for epoch in range(len(whole) // size):
            part = whole[epoch * size : (epoch + 1) * size]
            assert {one for one, _ in part} == {epoch}
            assert sorted(row for _, row in part) == list(range(size))


def test_an_epoch_in_the_middle_needs_none_before():
    """Prevents a resumed training whose rows are those of the start."""
    one, other = sampler_of((7, 5)), sampler_of((7, 5))
    passes = []
    for epoch in range(3):
        one.set_epoch(epoch)
        passes.append(list(one))
    other.set_epoch(2)
    assert list(other) == passes[2] != passes[0]


def test_a_batch_is_made_by_the_collator_of_its_task():
    """Prevents labels of one task that are read as those of another."""
    collate = MultitaskCollator([lambda rows: {"first": len(rows)}, lambda rows: {"second": len(rows)}])
    assert collate([{TASK: 1}, {TASK: 1}]) == {"second": 2, TASK: 1}
