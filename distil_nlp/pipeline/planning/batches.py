"""The micro-batches that a training will read: rows, widths and tokens, in the order in which they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import TrainingArguments

from distil_nlp.data.sampling import epoch_length, grouped_order, training_order

_EPOCHS = 3
"""Epochs whose order is drawn; whole ones after these are taken to be padded as they are."""


@dataclass(frozen=True)
class PlannedBatches:
    """All micro-batches of a training, over all processes.

    Attributes:
        steps: optimiser steps.
        widths: tokens of the longest row of each micro-batch, which the others are padded to.
        tokens: tokens of all rows, without padding and fillers.
        size: rows of a micro-batch, fillers included.
        steps_per_epoch: steps of a whole epoch; all steps for a stream.
        epoch: numbers of the rows of each micro-batch of the first epoch, (micro-batches, size); None for a stream,
            and for batches of whole queries.
        fillers: whether each micro-batch of the first epoch has rows that fill it up.
    """

    steps: int
    widths: np.ndarray
    tokens: int
    size: int
    steps_per_epoch: int
    epoch: np.ndarray | None = None
    fillers: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def representative(self, count: int) -> list[np.ndarray]:
        """Return the rows of some micro-batches of the first epoch, from the shortest to the longest; [] where
        they cannot be picked.

        Their widths are evenly spaced quantiles of all; those with fillers are left out where there are others.
        """
        if self.epoch is None:
            return []
        widths = self.widths[: len(self.epoch)]
        numbers = np.flatnonzero(~self.fillers[: len(widths)])
        numbers = numbers if len(numbers) else np.arange(len(widths))
        ordered = numbers[np.argsort(widths[numbers], kind="stable")]
        places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
        return [self.epoch[number] for number in ordered[places]]


def plan_batches(
    rows: Any, args: TrainingArguments, group_size: int | None, max_length: int, processes: int = 1
) -> PlannedBatches:
    """Return the micro-batches of a training.

    Args:
        rows: with a length, or a stream, each of whose rows counts `max_length` tokens.
        args: of the training.
        group_size: most rows of a query in a batch of whole queries; None for batches of single rows.
        max_length: most tokens of a row.
        processes: number of processes that share the rows.
    """
    size = args.train_batch_size
    if not hasattr(rows, "__len__"):
        count = args.max_steps * args.gradient_accumulation_steps * processes
        return PlannedBatches(
            args.max_steps, np.full(count, max_length), count * size * max_length, size, args.max_steps
        )
    lengths, order, drops_last = row_lengths(rows), _order(rows, args, group_size, processes), args.dataloader_drop_last

    def read(epoch: int) -> np.ndarray:
        return _batches_of(order(epoch), len(rows), size, processes, bool(drops_last))

    first = read(0)
    per_epoch = max(math.ceil(len(first) / processes / args.gradient_accumulation_steps), 1)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    widths, tokens = [], 0
    for epoch, count in _epochs(steps, per_epoch, len(first), args.gradient_accumulation_steps * processes):
        is_known = count == len(first) and not group_size
        drawn = epoch % _EPOCHS if is_known else epoch
        own = (read(drawn) if drawn else first)[:count]
        found = np.where(own < len(rows), lengths[own % len(rows)], 0)
        widths.append(lengths[own % len(rows)].max(1))
        tokens += int(found.sum())
    drawn_first = None if group_size else first % len(rows)  # whole queries cannot be put together anew
    fillers = np.any(first >= len(rows), axis=1)
    return PlannedBatches(steps, np.concatenate(widths), tokens, size, per_epoch, drawn_first, fillers)


def steps_of(args: TrainingArguments, rows: Any, group_size: int | None = None, processes: int | None = None) -> int:
    """Return the optimiser steps of a training, as Trainer counts them.

    Args:
        group_size: most rows of a query in a batch of whole queries; None for batches of single rows.
        processes: that share the rows; those of the arguments if None.
    """
    if args.max_steps > 0:
        return args.max_steps
    count = epoch_length(rows, args, group_size)
    rounding = math.floor if args.dataloader_drop_last else math.ceil
    batches = rounding(count / (args.train_batch_size * (processes or args.world_size)))
    return math.ceil(args.num_train_epochs * max(math.ceil(batches / args.gradient_accumulation_steps), 1))


def row_lengths(rows: Any) -> np.ndarray:
    """Return the number of tokens of each row, from the column `length` where there is one."""
    if "length" in rows.column_names:
        return np.asarray(rows["length"][:])
    return np.array([len(ids) for ids in rows["input_ids"]])


def _order(
    rows: Any, args: TrainingArguments, group_size: int | None, processes: int
) -> Callable[[int], list[int] | range]:
    """Return (epoch) → numbers of rows, those from the number of rows on for fillers."""
    if group_size:
        return grouped_order(rows, args, group_size)
    order = training_order(rows, args, processes)
    return order or (lambda epoch: range(len(rows)))


def _batches_of(order: Any, rows: int, size: int, processes: int, drops_last: bool) -> np.ndarray:
    """Return numbers of rows, (micro-batches, size); numbers from `rows` on are fillers."""
    numbers = np.fromiter(order, dtype=np.int64)
    if drops_last:
        numbers = numbers[: len(numbers) // (size * processes) * size * processes]
    missing = -len(numbers) % (size * processes)
    return np.concatenate([numbers, rows + np.arange(missing)]).reshape(-1, size)


def _epochs(steps: int, per_epoch: int, batches: int, per_step: int) -> Iterator[tuple[int, int]]:
    """Yield (epoch, micro-batches that are read in it); the last may end early."""
    for epoch in range(math.ceil(steps / per_epoch)):
        left = steps - epoch * per_epoch
        yield epoch, batches if left >= per_epoch else min(left * per_step, batches)
