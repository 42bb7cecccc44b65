"""Asks the teacher about every row, once; says beforehand what that takes and when it pays."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import send_to_device
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from distil_nlp.data.row_sets import RowCollator
from distil_nlp.data.sampling import EpochRows, encode_index
from distil_nlp.errors import UserError
from distil_nlp.signals.types import forward_with_signals
from distil_nlp.teachers.cache.contents import CachedSignals, Fields, RowPositions
from distil_nlp.teachers.cache.key import cache_fingerprint, cache_key
from distil_nlp.teachers.cache.shards import CHECKSUMS, MANIFEST, ShardLayout, TeacherCache, write_first, write_shard
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)

_SHARD_BYTES = 2**26
_SAMPLED_BATCHES = 4


@dataclass(frozen=True)
class CacheConfig:
    """Where a teacher's answers are kept, and how.

    Attributes:
        folder: holds a folder for each cache, named by all that its answers depend on.
        name: what those folders' names begin with.
        dtype: of what is kept: `float32`, `float16` or `bfloat16`.
        top_k: language modelling: how many of a token's likeliest words are kept; the others' mass is kept as one.
        mask_epochs: how many epochs' draws of masks and sampled tokens are kept; later epochs repeat them. Of no
            consequence where nothing is drawn.
    """

    folder: str | Path = "runs/caches"
    name: str = "teacher"
    dtype: str = "float16"
    top_k: int = 128
    mask_epochs: int = 1


def open_or_build_cache(
    teacher: PreTrainedModel,
    rows: Any,
    collator: RowCollator,
    contents: CachedSignals,
    cache: CacheConfig,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    workers: int = 0,
) -> TeacherCache:
    """The answers about these rows: as they are on disk, or asked for now, or completed where they are not whole.

    Each process asks about its share of the shards. What it takes, and after how many epochs it has paid, is measured
    on a few batches and said before.

    Args:
        teacher: in eval mode and on the device, with a `Recorder` for what `contents` names.
        collator: that of training: it draws the rows that the terms look at.

    Raises:
        UserError: if the disk is too small, the teacher's numbers cannot be kept, or a folder holds something else.
    """
    is_drawn = contents.draws() or getattr(collator.collate, "wants_epoch", False)
    epochs = cache.mask_epochs if is_drawn else 1
    key = cache_key(teacher, rows, collator, contents, epochs)
    folder = Path(cache.folder) / f"{cache.name}-{cache_fingerprint(key)}"
    asking = _TeacherPass(teacher, rows, collator, contents, device, batch_size, workers)
    is_new, state = not (folder / MANIFEST).is_file(), PartialState()
    state.wait_for_everyone()
    if is_new and is_main_process():
        asking.refuse_random_batches()
        _create_cache(folder, key, asking.estimate(Path(cache.folder)), len(rows), epochs)
    state.wait_for_everyone()
    found = TeacherCache(folder, key, contents)
    missing = found.missing()
    state.wait_for_everyone()  # all look before one writes
    if not is_new:
        count = len(found.layout.shards())
        state_of_parts = f": {len(missing)} of {count} parts missing or damaged" if missing else ""
        logger.info(f"teacher cache: {folder}{state_of_parts}")
    mine = missing[state.process_index :: state.num_processes]
    for shard in tqdm(mine, desc="asking the teacher", unit="part", disable=not (mine and is_main_process())):
        found.write(shard, *asking.about(shard, found.layout))
    state.wait_for_everyone()
    return found


@dataclass(frozen=True)
class Estimate:
    """What a cache takes, measured on a few batches.

    Attributes:
        row_bytes: of a row's answers.
        ask, write, read: seconds for a row: a forward of the teacher, putting its answers away, getting them back.
    """

    row_bytes: float
    ask: float
    write: float
    read: float

    def break_even(self, epochs: int) -> float | None:
        """Epochs of training after which asking has paid; None if reading is no faster."""
        saved = self.ask - self.read
        return epochs * (self.ask + self.write) / saved if saved > 0 else None


def _create_cache(folder: Path, key: dict[str, Any], estimate: Estimate, rows: int, epochs: int) -> None:
    """Says what a new cache takes, and writes what it is of.

    Raises:
        UserError: if the disk has too little room.
    """
    size, pays = rows * epochs * estimate.row_bytes, estimate.break_even(epochs)
    when = f"pays off after {pays:.1f} epochs" if pays else "will not pay off: reading is no faster than the teacher"
    logger.info(f"teacher cache: {_human(size)} in {folder}, {when}")
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise UserError(
            "teacher.cache",
            f"{_human(size)} of disk at {folder.parent}",
            f"{_human(free)}",
            why="the cache would not be whole",
            fix=(
                "set teacher.cache.folder to a larger disk, lower teacher.cache.top_k or mask_epochs, or "
                "match fewer layers"
            ),
        )
    layout = ShardLayout(rows, epochs, max(1, min(rows, int(_SHARD_BYTES / estimate.row_bytes))))
    folder.mkdir(parents=True, exist_ok=True)
    write_first(folder / MANIFEST, json.dumps({"key": key, "layout": vars(layout)}, indent=1))


def _human(size: float) -> str:
    return tqdm.format_sizeof(size, "B", 1000)


@dataclass
class _TeacherPass:
    """A teacher that is asked about rows."""

    teacher: PreTrainedModel
    rows: Any
    collator: RowCollator
    contents: CachedSignals
    device: torch.device | str
    batch_size: int
    workers: int

    def about(self, shard: tuple[int, int], layout: ShardLayout) -> tuple[Fields, dict[str, Any]]:
        """A shard's fields, in the order of its rows, and what reading needs besides."""
        epoch, number = shard
        rows = layout.rows_of(number)
        found, scalings = self._answers(rows, epoch)
        return join_rows([found[row] for row in rows], self.contents), {"scalings": scalings}

    def estimate(self, folder: Path) -> Estimate:
        """From a few batches of rows spread over the whole set."""
        count = min(len(self.rows), _SAMPLED_BATCHES * self.batch_size)
        rows = [i * len(self.rows) // count for i in range(count)]
        batches = list(self._batches(rows, 0, workers=0))
        self._ask(batches[0][1])  # a first forward takes longer
        times = [time.perf_counter()]
        asked = [self._ask(batch) for _, batch in batches]
        times.append(time.perf_counter())
        parts = [
            split_rows(one[0], one[2], self.contents, len(seen[0])) for one, seen in zip(asked, batches, strict=True)
        ]
        fields = join_rows([row for part in parts for row in part], self.contents)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as probe:
            path = Path(probe) / "probe.safetensors"
            write_shard(path, fields)
            times.append(time.perf_counter())
            read = [value.clone() for value in load_file(path).values()]
            times.append(time.perf_counter())
        size = sum(value.nbytes for value in read)
        return Estimate(size / count, *(np.diff(times) / count).tolist())

    def refuse_random_batches(self) -> None:
        """Raises UserError if a row is masked otherwise each time that it is looked at, unknown to us."""
        rows = range(min(len(self.rows), self.batch_size))
        one, other = (next(iter(self._batches(rows, 0, workers=0)))[1]["input_ids"] for _ in range(2))
        if not torch.equal(one, other):
            raise UserError(
                "teacher.cache",
                "a collator that gives the same batch for the same rows and epoch",
                f"two from {type(self.collator.collate).__name__}",
                why="the teacher would be asked about other masks",
                fix="use distil_nlp.data.MaskingCollator, or leave the cache out",
            )

    def _answers(self, rows: Sequence[int], epoch: int) -> tuple[dict[int, Fields], dict[str, float]]:
        """Row → its fields, and the attention's scalings."""
        found: dict[int, Fields] = {}
        scalings: dict[str, float] = {}
        for numbers, batch in self._batches(rows, epoch, self.workers):
            fields, told, places = self._ask(batch)
            scalings |= told
            found |= zip(numbers, split_rows(fields, places, self.contents, len(numbers)), strict=True)
        return found, scalings

    def _batches(self, rows: Sequence[int], epoch: int, workers: int) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """(numbers of the rows, batch), ordered by length, so that little is padded."""
        order = sorted(rows, key=lambda row: len(self.rows[row]["input_ids"]))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        loader = DataLoader(
            EpochRows(self.rows),
            batch_sampler=[[encode_index(epoch, row) for row in batch] for batch in batches],
            collate_fn=self.collator,
            num_workers=workers,
            generator=torch.Generator(),  # a loader draws from torch's otherwise
        )
        return zip(batches, loader, strict=True)

    @torch.no_grad()
    def _ask(self, batch: dict[str, Any]) -> tuple[Fields, dict[str, float], RowPositions]:
        places = RowPositions.of(batch, self.contents, attended_tokens(batch))
        batch = send_to_device(batch, self.device)
        signals = forward_with_signals(self.teacher, batch, batch["rows"])
        return self.contents.fields(signals, batch["rows"]), self.contents.scalings(signals), places


def attended_tokens(batch: dict[str, Any]) -> np.ndarray:
    """Which tokens are no padding, (batch, seq); without a mask all."""
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).numpy().astype(bool)


def split_rows(fields: Fields, places: RowPositions, contents: CachedSignals, size: int) -> Iterator[Fields]:
    """A batch's fields as those of each of its rows."""
    drawn = {f"places/{name}": torch.from_numpy(where) for name, where in places.drawn.items()}
    parts = {
        name: value.split(places.counts[contents.set_of(name)].tolist()) for name, value in (fields | drawn).items()
    }
    parts[CHECKSUMS] = torch.from_numpy(places.checksums).split(1)
    return ({name: part[i].clone() for name, part in parts.items()} for i in range(size))


def join_rows(rows: Sequence[Fields], contents: CachedSignals) -> Fields:
    """The fields of single rows, one after the other, with the offsets at which each row's begin."""
    found = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    counted = {contents.set_of(name): name for name in rows[0] if name != CHECKSUMS}
    for name, field in counted.items():
        lengths = torch.tensor([0, *(len(row[field]) for row in rows)])
        found[f"offsets/{name}"] = lengths.cumsum(0)
    return found
