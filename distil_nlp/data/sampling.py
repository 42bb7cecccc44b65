"""The order of rows as a pure function of (seed, epoch), the same on any number of processes and after a resume.

An index handed to the dataset is `epoch · stride + row`, so that worker processes need no shared state to know
the epoch. Rows from `len(dataset)` on are fillers, which make the last batch even: they are computed with
everybody else's and belong to no row set, instead of being counted twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info
from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import PARTNER, SHARE, Mixup
from distil_nlp.data.row_sets import EPOCH, FILLER, NUMBER
from distil_nlp.errors import UserError

_STRIDE = 2**40
"""More rows than any dataset has; Python integers do not overflow."""


class EpochSampler(Sampler[int]):
    """Yields encoded indices, shuffled anew each epoch or in order, filled up to a multiple.

    Args:
        num_rows: rows of the dataset.
        multiple: rows that one round of all processes takes.
        order: (epoch) → row numbers; None for 0, 1, 2, …
    """

    def __init__(self, num_rows: int, multiple: int, order: Callable[[int], list[int]] | None = None):
        self.num_rows, self.order, self.epoch = num_rows, order, 0
        self.num_fillers = math.ceil(num_rows / multiple) * multiple - num_rows

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows + self.num_fillers

    def __iter__(self) -> Iterator[int]:
        rows = self.order(self.epoch) if self.order else range(self.num_rows)
        base = encode_index(self.epoch, 0)
        yield from (base + row for row in rows)
        yield from (base + self.num_rows + filler for filler in range(self.num_fillers))


def training_order(rows: Any, args: TrainingArguments) -> Callable[[int], list[int]] | None:
    """(epoch) → row numbers, by `train_sampling_strategy`: `random`, `group_by_length` (rows of like length side
    by side, so that batches need little padding) or `sequential` (None).

    Raises:
        UserError: if rows have no length column to group by, or for a strategy that is none of these.
    """
    seed = args.data_seed if args.data_seed is not None else args.seed
    if args.train_sampling_strategy == "sequential":
        return None
    if args.train_sampling_strategy == "random":
        return lambda epoch: torch.randperm(len(rows), generator=_generator(seed, epoch)).tolist()
    if args.train_sampling_strategy == "group_by_length":
        lengths = _lengths(rows, args.length_column_name)
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return lambda epoch: get_length_grouped_indices(lengths, size, generator=_generator(seed, epoch))
    raise UserError(
        "training.train_sampling_strategy",
        "random, group_by_length or sequential",
        f"{args.train_sampling_strategy}",
        why="its batches cannot be resumed exactly",
        fix="choose one of those",
    )


def _lengths(rows: Any, column: str) -> list[int]:
    """Lengths of rows by their column, which avoids reading every row."""
    if column not in getattr(rows, "column_names", ()):
        raise UserError(
            "training.train_sampling_strategy=group_by_length",
            f"a column {column!r} with each row's number of tokens",
            f"columns {getattr(rows, 'column_names', None)}",
            why="finding lengths row by row is very slow",
            fix="add the column",
        )
    return list(rows[column])


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def encode_index(epoch: int, row: int) -> int:
    """The index by which `EpochRows` knows a row in an epoch."""
    return epoch * _STRIDE + row


class EpochRows(Dataset):
    """A dataset that is read through the indices of `EpochSampler`; adds `epoch` and `filler` to each row.

    Args:
        cached_epochs: of how many epochs' draws a teacher's answers are kept: a row then also has its `number`, and is
            drawn as in epoch 0 again when they are through.
        cutoff: drops tokens of rows.
        mixup: gives rows a partner, another row of the dataset as it is read in the same epoch; fillers have none.
    """

    def __init__(
        self, rows: Any, cached_epochs: int | None = None, cutoff: Cutoff | None = None, mixup: Mixup | None = None
    ):
        self.rows, self.cached_epochs, self.cutoff, self.mixup = rows, cached_epochs, cutoff, mixup

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        places = [divmod(index, _STRIDE) for index in indices]
        read = self._read([(epoch, place % len(self.rows)) for epoch, place in places])
        found = [{**row, **self._about(*place)} for row, place in zip(read, places, strict=True)]
        if self.mixup is not None:
            self._pair([row for row in found if not row[FILLER]], [one for one in places if one[1] < len(self.rows)])
        return found

    def _read(self, places: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Rows by (epoch, number), without the tokens that are cut off."""
        numbers = [number for _, number in places]
        many = getattr(self.rows, "__getitems__", None)
        rows = many(numbers) if many else [self.rows[number] for number in numbers]
        if self.cutoff is None:
            return rows
        return [self.cutoff(row, *place) for row, place in zip(rows, places, strict=True)]

    def _pair(self, rows: list[dict[str, Any]], places: list[tuple[int, int]]) -> None:
        """Adds partner and share to the rows that are mixed."""
        drawn = [self.mixup.draw(*place, len(self.rows)) for place in places]
        mixed = [(row, epoch, *one) for row, (epoch, _), one in zip(rows, places, drawn, strict=True) if one]
        partners = self._read([(epoch, number) for _, epoch, number, _ in mixed])
        for (row, _, _, share), partner in zip(mixed, partners, strict=True):
            row |= {PARTNER: partner, SHARE: share}

    def _about(self, epoch: int, place: int) -> dict[str, Any]:
        about = {EPOCH: epoch, FILLER: place >= len(self.rows)}
        return about | {EPOCH: epoch % self.cached_epochs, NUMBER: place} if self.cached_epochs else about


class EpochStream(IterableDataset):
    """A stream without end, pass after pass, whose rows know their epoch; one process's part of it, which the workers
    of its loader share.

    Args:
        stream: an iterable of rows; a `datasets.IterableDataset` is shuffled anew each pass (if it shuffles) and
            split by its shards where they go round, else row by row.
        rank, world_size: which part.

    Raises:
        UserError: if a pass yields nothing.
    """

    def __init__(self, stream: Any, rank: int = 0, world_size: int = 1):
        self.rank, self.world_size = rank, world_size
        self._splits_itself = isinstance(stream, datasets.IterableDataset)
        if world_size > 1 and self._splits_itself:
            stream = split_dataset_by_node(stream, rank=rank, world_size=world_size)
        self.stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        for epoch in itertools.count():
            if hasattr(self.stream, "set_epoch"):
                self.stream.set_epoch(epoch)
            seen = 0
            for seen, row in enumerate(self.stream, 1):
                if self._splits_itself or self._is_mine(seen - 1, worker):
                    yield {**row, EPOCH: epoch}
            if seen == 0 and worker is not None:
                return  # fewer shards than workers
            if seen == 0:
                raise UserError(
                    "data",
                    "rows in the stream",
                    "none",
                    why="there is nothing to learn from",
                )

    def _is_mine(self, row: int, worker: Any) -> bool:
        """Whether a row of a stream that does not split itself belongs to this worker of this process."""
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        return row % (self.world_size * workers) == self.rank * workers + number
