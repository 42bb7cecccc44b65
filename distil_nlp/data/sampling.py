"""The order of rows as a pure function of (seed, epoch), the same for any number of processes and after a resume.

An index of the dataset is `epoch · stride + row`, so that worker processes know the epoch without shared state. Rows
from `len(dataset)` on are fillers, which complete the last batch: they run through the models like all others but
belong to no row set, so that no row is counted twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info
from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import PARTNER, SHARE, Mixup
from distil_nlp.data.query_groups import GroupedOrder, check_batch_size, evaluation_slots
from distil_nlp.data.row_sets import EPOCH, FILLER, NUMBER
from distil_nlp.errors import UserError, quoted

_STRIDE = 2**40
"""More rows than any dataset has; Python integers do not overflow."""


class EpochSampler(Sampler[int]):
    """Yields encoded indices, shuffled anew each epoch or in order, with fillers up to a multiple.

    Args:
        num_rows: rows of an epoch: those of the dataset, or the length of what `order` gives.
        multiple: number of rows that all processes read in one round.
        order: (epoch) → row numbers; None for 0, 1, 2, …
        first_filler: the number of the first filler, which no row of the dataset has; `num_rows` if None.
    """

    def __init__(
        self,
        num_rows: int,
        multiple: int,
        order: Callable[[int], list[int]] | None = None,
        first_filler: int | None = None,
    ):
        self.num_rows, self.order, self.epoch = num_rows, order, 0
        self.num_fillers = math.ceil(num_rows / multiple) * multiple - num_rows
        self.first_filler = num_rows if first_filler is None else first_filler

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows + self.num_fillers

    def __iter__(self) -> Iterator[int]:
        rows = self.order(self.epoch) if self.order else range(self.num_rows)
        base = encode_index(self.epoch, 0)
        yield from (base + row for row in rows)
        yield from (base + self.first_filler + filler for filler in range(self.num_fillers))


def training_order(
    rows: Any, args: TrainingArguments, processes: int | None = None
) -> Callable[[int], list[int]] | None:
    """Return the function (epoch) → row numbers for `train_sampling_strategy`, or None for row order.

    Strategies are `random`, `group_by_length` (rows of similar length are adjacent, so that batches need little
    padding) and `sequential` (None).

    Args:
        rows: with a length.
        args: of the training.
        processes: that share the rows; those of the arguments if None.

    Raises:
        UserError: if rows have no length column to group by, or the strategy is unknown.
    """
    seed = draw_seed(args)
    if args.train_sampling_strategy == "sequential":
        return None
    if args.train_sampling_strategy == "random":
        return lambda epoch: torch.randperm(len(rows), generator=_generator(seed, epoch)).tolist()
    if args.train_sampling_strategy == "group_by_length":
        lengths = _lengths(rows, args.length_column_name)
        size = args.train_batch_size * args.gradient_accumulation_steps * (processes or args.world_size)
        return lambda epoch: get_length_grouped_indices(lengths, size, generator=_generator(seed, epoch))
    raise UserError(
        "training.train_sampling_strategy",
        "random, group_by_length or sequential",
        str(args.train_sampling_strategy),
        why="its batches cannot be resumed exactly",
        fix="choose one of those",
    )


def grouped_order(rows: Any, args: TrainingArguments, group_size: int) -> GroupedOrder:
    """Return the function (epoch) → row numbers, in which each batch has whole queries, and its length.

    Raises:
        UserError: see `check_grouping`.
    """
    check_grouping(args, group_size)
    shuffles = args.train_sampling_strategy == "random"
    return GroupedOrder(_labels(rows), args.train_batch_size, group_size, draw_seed(args), shuffles)


def epoch_length(rows: Any, args: TrainingArguments, group_size: int | None) -> int:
    """Return how many rows an epoch reads, those that fill up batches of whole queries included.

    Args:
        group_size: most rows of a query in a batch of whole queries; None for batches of single rows.
    """
    return grouped_order(rows, args, group_size).num_slots if group_size else len(rows)


def check_grouping(args: TrainingArguments, group_size: int) -> None:
    """Raise UserError if a query would not fit into a batch, or rows are to be grouped by length too."""
    check_batch_size(args.train_batch_size, group_size)
    if args.train_sampling_strategy not in ("random", "sequential"):
        raise UserError(
            "training.train_sampling_strategy",
            "random or sequential, where the documents of a query share a batch",
            str(args.train_sampling_strategy),
            why="rows are grouped by query, not by length",
            fix="leave it out",
        )


def draw_seed(args: TrainingArguments) -> int:
    """Return the seed of the order of rows."""
    return args.data_seed if args.data_seed is not None else args.seed


def packed_rows(rows: Any, batch_size: int) -> PackedRows:
    """Return rows in an order in which each batch of an evaluation has whole queries."""
    return PackedRows(rows, evaluation_slots(_labels(rows), batch_size))


def _labels(rows: Any) -> Any:
    """Return the labels of all rows, without reading every row where they are a column."""
    return rows["labels"][:] if hasattr(rows, "column_names") else [row["labels"] for row in rows]


def _lengths(rows: Any, column: str) -> list[int]:
    """Return the lengths of rows from their column, without reading every row."""
    if column not in getattr(rows, "column_names", ()):
        raise UserError(
            "training.length_column_name",
            f"for train_sampling_strategy=group_by_length, a column {column!r} with each row's number of tokens",
            f"columns {quoted(getattr(rows, 'column_names', None))}",
            why="computing lengths row by row is very slow",
            fix="leave length_column_name out, or add the column",
        )
    return list(rows[column])


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def encode_index(epoch: int, row: int) -> int:
    """Return the index of a row in an epoch, as `EpochRows` decodes it."""
    return epoch * _STRIDE + row


class EpochRows(Dataset):
    """A dataset that is read by the indices of `EpochSampler`; adds `epoch` and `filler` to each row.

    Args:
        cached_epochs: number of epochs whose draws are in a teacher cache: a row then also has its `number`, and the
            draws start over from epoch 0 after that many epochs.
        cutoff: drops tokens of rows.
        mixup: adds to rows a partner, another row of the dataset as read in the same epoch; fillers have none.
        numbered: True to add the `number` without a cache too.
    """

    def __init__(
        self,
        rows: Any,
        cached_epochs: int | None = None,
        cutoff: Cutoff | None = None,
        mixup: Mixup | None = None,
        numbered: bool = False,
    ):
        self.rows, self.cached_epochs, self.cutoff, self.mixup = rows, cached_epochs, cutoff, mixup
        self.numbered = numbered

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        positions = [divmod(index, _STRIDE) for index in indices]
        rows = self._read([(epoch, number % len(self.rows)) for epoch, number in positions])
        rows = [{**row, **self._added_columns(*position)} for row, position in zip(rows, positions, strict=True)]
        if self.mixup is not None:
            self._add_partners(
                [row for row in rows if not row[FILLER]], [p for p in positions if p[1] < len(self.rows)]
            )
        return rows

    def _read(self, positions: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return rows by (epoch, number), with cut-off applied."""
        numbers = [number for _, number in positions]
        read_many = getattr(self.rows, "__getitems__", None)
        rows = read_many(numbers) if read_many else [self.rows[number] for number in numbers]
        if self.cutoff is None:
            return rows
        return [self.cutoff(row, *position) for row, position in zip(rows, positions, strict=True)]

    def _add_partners(self, rows: list[dict[str, Any]], positions: list[tuple[int, int]]) -> None:
        """Add partner and mixing coefficient to the rows that are mixed."""
        assert self.mixup is not None
        draws = [self.mixup.draw(*position, len(self.rows)) for position in positions]
        mixed = [(row, epoch, *draw) for row, (epoch, _), draw in zip(rows, positions, draws, strict=True) if draw]
        partners = self._read([(epoch, number) for _, epoch, number, _ in mixed])
        for (row, _, _, coefficient), partner in zip(mixed, partners, strict=True):
            row |= {PARTNER: partner, SHARE: coefficient}

    def _added_columns(self, epoch: int, number: int) -> dict[str, Any]:
        columns = {EPOCH: epoch, FILLER: number >= len(self.rows)}
        if self.cached_epochs:
            columns[EPOCH] = epoch % self.cached_epochs
        return columns | ({NUMBER: number} if self.numbered or self.cached_epochs else {})


class PackedRows(EpochRows):
    """A dataset in another order, with fillers between its rows, which is read by the indices of `EpochSampler`.

    Args:
        rows: the dataset.
        slots: numbers of rows; fillers are those from the number of rows on.
    """

    def __init__(self, rows: Any, slots: Sequence[int]):
        super().__init__(rows)
        self.slots = slots

    def __len__(self) -> int:
        return len(self.slots)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        positions = [divmod(index, _STRIDE) for index in indices]
        return super().__getitems__([encode_index(epoch, self._row(slot)) for epoch, slot in positions])

    def _row(self, slot: int) -> int:
        return self.slots[slot] if slot < len(self.slots) else len(self.rows)


class EpochStream(IterableDataset):
    """An endless stream, pass after pass, whose rows have their epoch.

    It yields the rows of one process, divided among the workers of its loader.

    Args:
        stream: an iterable of rows; a `datasets.IterableDataset` is shuffled anew each pass (if it shuffles) and
            split by its shards if their number is a multiple of the number of processes, else row by row.
        rank, world_size: number of this process, and of all.

    Raises:
        UserError: if a pass yields no rows.
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
            count = 0
            for count, row in enumerate(self.stream, 1):
                if self._splits_itself or self._is_own(count - 1, worker):
                    yield {**row, EPOCH: epoch}
            if count == 0 and worker is not None:
                return  # fewer shards than workers
            if count == 0:
                raise UserError(
                    "data",
                    "rows in the stream",
                    "none",
                    why="there is nothing to learn from",
                )

    def _is_own(self, row: int, worker: Any) -> bool:
        """Return True if a row, of a stream that does not split itself, is read by this worker of this process."""
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        return row % (self.world_size * workers) == self.rank * workers + number
