"""The order of rows where several tasks train together: each step is of one task, drawn by (seed, step) alone.

Within a task, rows come as they would if it trained alone: epoch after epoch, each in an order by (seed, epoch). So the
rows of any step are known without those before it being read, whatever the number of processes, and after a resume.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from distil_nlp.data.row_sets import RowCollator
from distil_nlp.data.sampling import EpochRows, EpochSampler, encode_index

TASK = "task"
"""Column of rows and batches with the number of their task."""
_SALT, _BLOCK = 2, 1024
_TASKS = 2**80
"""More than any index of `EpochSampler`; Python integers do not overflow."""


@dataclass(frozen=True)
class TaskDraws:
    """Draws of the task of each step, with a probability that grows with a task's rows to a power.

    Attributes:
        rows: number of training rows of each task.
        power: exponent; 1 for probabilities that are shares of all rows, 0 for equal ones.
        seed: of the draws.
    """

    rows: tuple[int, ...]
    power: float
    seed: int

    @property
    def probabilities(self) -> np.ndarray:
        """The probability of each task in any step."""
        sizes = np.array(self.rows, dtype=np.float64) ** self.power
        return sizes / sizes.sum()

    def task(self, step: int) -> int:
        """Return the number of the task of a step, counted from 0."""
        block, place = divmod(step, _BLOCK)
        return int(_tasks_of_block(self, block)[place])

    def steps(self, count: int) -> list[int]:
        """Return how many of the first steps are of each task."""
        blocks = [_tasks_of_block(self, block)[: count - block * _BLOCK] for block in range(-(-count // _BLOCK))]
        return sum(
            (np.bincount(one, minlength=len(self.rows)) for one in blocks), np.zeros(len(self.rows), int)
        ).tolist()


@lru_cache(maxsize=64)
def _tasks_of_block(draws: TaskDraws, block: int) -> np.ndarray:
    """Return the numbers of the tasks of `_BLOCK` steps."""
    drawn = np.random.default_rng((draws.seed, block, _SALT)).random(_BLOCK)
    return np.searchsorted(draws.probabilities.cumsum()[:-1], drawn, side="right")


class TaskSampler(Sampler[int]):
    """Yields the indices of steps of one task each; an epoch has as many steps as one pass over the rows of all tasks.

    Args:
        samplers: that of each task alone, whose length is a multiple of the rows of a micro-batch.
        draws: which task a step is of.
        rows_per_step: of all micro-batches and processes.
    """

    def __init__(self, samplers: Sequence[EpochSampler], draws: TaskDraws, rows_per_step: int):
        self.samplers, self.draws, self.rows_per_step, self.epoch = samplers, draws, rows_per_step, 0
        self.steps = [math.ceil(len(sampler) / rows_per_step) for sampler in samplers]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.steps) * self.rows_per_step

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * sum(self.steps)
        done = self.draws.steps(first)
        orders = [
            _Order(sampler, steps, self.rows_per_step) for sampler, steps in zip(self.samplers, self.steps, strict=True)
        ]
        for step in range(first, first + sum(self.steps)):
            task = self.draws.task(step)
            yield from (task * _TASKS + index for index in orders[task].of_step(done[task]))
            done[task] += 1


class _Order:
    """The rows of each step of a task; the order of one epoch is held at a time."""

    def __init__(self, sampler: EpochSampler, steps: int, rows_per_step: int):
        self.sampler, self.steps, self.size = sampler, steps, rows_per_step
        self.epoch, self.indices = -1, [0]

    def of_step(self, step: int) -> list[int]:
        """Return the indices of a step of this task; the last one of an epoch is filled up."""
        epoch, within = divmod(step, self.steps)
        if epoch != self.epoch:
            self.sampler.set_epoch(epoch)
            self.epoch, self.indices = epoch, list(self.sampler)
        rows = self.indices[within * self.size : (within + 1) * self.size]
        filler = encode_index(epoch, self.sampler.first_filler)
        return rows + [filler] * (self.size - len(rows))


class TaskRows(Dataset):
    """The rows of several tasks, which are read by the indices of `TaskSampler`; adds the number of the task to each.

    Args:
        tasks: rows of each task.
    """

    def __init__(self, tasks: Sequence[EpochRows]):
        self.tasks = tasks

    def __len__(self) -> int:
        return sum(map(len, self.tasks))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        positions = [divmod(index, _TASKS) for index in indices]
        groups = itertools.groupby(positions, key=lambda position: position[0])
        return [
            {**row, TASK: task}
            for task, group in groups
            for row in self.tasks[task].__getitems__([index for _, index in group])
        ]


@dataclass
class MultitaskCollator:
    """Makes a batch of rows of one task, by that task's collator.

    Attributes:
        collators: that of each task.
    """

    collators: Sequence[RowCollator | Callable[..., Any]]

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        task = features[0][TASK]
        return {**self.collators[task](features), TASK: task}
