"""Building of a teacher cache: runs the teacher once on every row, after an estimate of size and break-even."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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

from distil_nlp.data.row_sets import RowCollator, present_tokens
from distil_nlp.data.sampling import EpochRows, encode_index
from distil_nlp.errors import UserError
from distil_nlp.signals.types import forward_with_signals
from distil_nlp.teachers.cache.contents import CachedSignals, Fields, RowPositions
from distil_nlp.teachers.cache.key import cache_fingerprint, cache_key
from distil_nlp.teachers.cache.shards import CHECKSUMS, MANIFEST, ShardLayout, TeacherCache, write_first, write_shard
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger, is_main_process
from distil_nlp.utils.names import path_name

logger = get_logger(__name__)

_SHARD_BYTES = 2**26
_SAMPLED_BATCHES = 4


@dataclass(frozen=True)
class CacheConfig:
    """Settings of a teacher cache.

    Attributes:
        folder: parent of the caches' folders, whose names hold a hash of everything that the outputs depend on.
        name: prefix of these names.
        dtype: dtype of cached values: `float32`, `float16` or `bfloat16`.
        top_k: language modelling: number of a token's likeliest words that are cached, besides the tail probability.
        mask_epochs: number of epochs whose masks and sampled tokens are cached; later epochs repeat them. Without
            effect if nothing is drawn at random.
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
    recorder: Any = None,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    workers: int = 0,
    is_told_to_stop: Callable[[], bool] = lambda: False,
) -> TeacherCache:
    """Return the teacher's outputs for these rows: read from disk, computed now, or completed.

    Each process runs the teacher on its part of the shards. The size of a new cache, and the number of epochs after
    which it pays off, are measured on a few batches and logged beforehand. A cache that another run is filling is
    waited for.

    Args:
        teacher: the model, in eval mode and on the device, with a `Recorder` for the signals that `contents` names.
        collator: the collator of training, which draws the row sets.
        recorder: the teacher's for these signals; the newest on it if None.
        is_told_to_stop: asked before each part; where it says so, the other parts are left missing.

    Raises:
        UserError: if the disk is too small, the teacher's outputs do not fit the dtype, or the folder holds another
            cache.
    """
    is_drawn = contents.random_row_sets() or getattr(collator.collate, "wants_epoch", False)
    epochs = cache.mask_epochs if is_drawn else 1
    key = cache_key(teacher, rows, collator, contents, epochs)
    folder = cache_folder(cache, key)
    teacher_pass = _TeacherPass(teacher, rows, collator, contents, recorder, device, batch_size, workers)
    with claimed(folder, wait_for="the teacher's outputs"):
        PartialState().wait_for_everyone()  # until the main process holds the folder
        return _open_or_build(folder, key, teacher_pass, contents, epochs, is_told_to_stop)


def _open_or_build(
    folder: Path,
    key: dict[str, Any],
    teacher_pass: _TeacherPass,
    contents: CachedSignals,
    epochs: int,
    is_told_to_stop: Callable[[], bool],
) -> TeacherCache:
    """Return the cache in a folder, with all shards unless it is told to stop."""
    is_new, state = not (folder / MANIFEST).is_file(), PartialState()
    state.wait_for_everyone()
    if is_new and is_main_process():
        teacher_pass.check_reproducible_batches()
        _create_cache(folder, key, teacher_pass.estimate_cost(folder.parent), len(teacher_pass.rows), epochs)
    state.wait_for_everyone()
    teacher_cache = TeacherCache(folder, key, contents)
    missing = teacher_cache.missing()
    state.wait_for_everyone()  # all processes list the missing shards before any of them writes one
    if not is_new:
        count = len(teacher_cache.layout.shards())
        damage = f": {len(missing)} of {count} parts missing or damaged" if missing else ""
        logger.info(f"teacher cache: {folder}{damage}")
    own = missing[state.process_index :: state.num_processes]
    for shard in tqdm(own, desc="running the teacher", unit="part", disable=not (own and is_main_process())):
        if is_told_to_stop():
            break
        teacher_cache.write(shard, *teacher_pass.compute(shard, teacher_cache.layout))
    state.wait_for_everyone()
    return teacher_cache


def cache_folder(cache: CacheConfig, key: dict[str, Any]) -> Path:
    """Return the folder of a cache with this key."""
    return Path(cache.folder) / f"{path_name(cache.name)}-{cache_fingerprint(key)}"


@dataclass(frozen=True)
class CacheCost:
    """Size and times of a cache, measured on a few batches.

    Attributes:
        row_bytes: size of a row's cached outputs.
        forward_seconds, write_seconds, read_seconds: time per row of running the teacher, writing and reading.
    """

    row_bytes: float
    forward_seconds: float
    write_seconds: float
    read_seconds: float

    def break_even(self, epochs: int) -> float | None:
        """Return the number of training epochs after which the cache pays off; None if reading is not faster."""
        saved = self.forward_seconds - self.read_seconds
        return epochs * (self.forward_seconds + self.write_seconds) / saved if saved > 0 else None


def _create_cache(folder: Path, key: dict[str, Any], cost: CacheCost, rows: int, epochs: int) -> None:
    """Log size and break-even of a new cache, and write its manifest.

    Raises:
        UserError: if the disk has too little space.
    """
    size, break_even = rows * epochs * cost.row_bytes, cost.break_even(epochs)
    verdict = "will not pay off: reading is no faster than the teacher"
    if break_even:
        verdict = f"pays off after {break_even:.1f} epochs"
    logger.info(f"teacher cache: {_human(size)} in {folder}, {verdict}")
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise UserError(
            "teacher.cache",
            f"{_human(size)} of disk at {folder.parent}",
            _human(free),
            why="the cache would be incomplete",
            fix=(
                "set teacher.cache.folder to a larger disk, lower teacher.cache.top_k or mask_epochs, or "
                "match fewer layers"
            ),
        )
    layout = ShardLayout(rows, epochs, max(1, min(rows, int(_SHARD_BYTES / cost.row_bytes))))
    folder.mkdir(parents=True, exist_ok=True)
    write_first(folder / MANIFEST, json.dumps({"key": key, "layout": vars(layout)}, indent=1))


def _human(size: float) -> str:
    return tqdm.format_sizeof(size, "B", 1000)


@dataclass
class _TeacherPass:
    """A pass of the teacher over the training rows."""

    teacher: PreTrainedModel
    rows: Any
    collator: RowCollator
    contents: CachedSignals
    recorder: Any
    device: torch.device | str
    batch_size: int
    workers: int

    def compute(self, shard: tuple[int, int], layout: ShardLayout) -> tuple[Fields, dict[str, Any]]:
        """Return a shard's fields, in the order of its rows, and the metadata that reading needs."""
        epoch, number = shard
        rows = layout.rows_of(number)
        outputs, scalings = self._outputs(rows, epoch)
        return join_rows([outputs[row] for row in rows], self.contents), {"scalings": scalings}

    def estimate_cost(self, folder: Path) -> CacheCost:
        """Measure the cost on a few batches of rows from the whole data set."""
        count = min(len(self.rows), _SAMPLED_BATCHES * self.batch_size)
        rows = [i * len(self.rows) // count for i in range(count)]
        batches = list(self._batches(rows, 0, workers=0))
        self._run(batches[0][1])  # warm-up: the first forward takes longer
        times = [time.perf_counter()]
        outputs = [self._run(batch) for _, batch in batches]
        times.append(time.perf_counter())
        parts = [
            split_rows(fields, positions, self.contents, len(numbers))
            for (fields, _, positions), (numbers, _) in zip(outputs, batches, strict=True)
        ]
        fields = join_rows([row for part in parts for row in part], self.contents)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as probe:
            path = Path(probe) / "probe.safetensors"
            write_shard(path, fields)
            times.append(time.perf_counter())
            loaded = [value.clone() for value in load_file(path).values()]
            times.append(time.perf_counter())
        size = sum(value.nbytes for value in loaded)
        return CacheCost(size / count, *(np.diff(times) / count).tolist())

    def check_reproducible_batches(self) -> None:
        """Raise UserError if the collator draws different masks each time that it gets the same rows."""
        rows = range(min(len(self.rows), self.batch_size))
        first, second = (next(iter(self._batches(rows, 0, workers=0)))[1]["input_ids"] for _ in range(2))
        if not torch.equal(first, second):
            raise UserError(
                "teacher.cache",
                "a collator that gives the same batch for the same rows and epoch",
                f"two different batches from {type(self.collator.collate).__name__}",
                why="cached outputs would belong to other masks",
                fix="use distil_nlp.data.MaskingCollator, or leave the cache out",
            )

    def _outputs(self, rows: Sequence[int], epoch: int) -> tuple[dict[int, Fields], dict[str, float]]:
        """Return (row → its fields, the attention scalings)."""
        outputs: dict[int, Fields] = {}
        scalings: dict[str, float] = {}
        for numbers, batch in self._batches(rows, epoch, self.workers):
            fields, batch_scalings, positions = self._run(batch)
            scalings |= batch_scalings
            outputs |= zip(numbers, split_rows(fields, positions, self.contents, len(numbers)), strict=True)
        return outputs, scalings

    def _batches(self, rows: Sequence[int], epoch: int, workers: int) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield (numbers of the rows, batch), ordered by length, so that little is padded."""
        order = sorted(rows, key=lambda row: len(self.rows[row]["input_ids"]))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        loader = DataLoader(
            EpochRows(self.rows),
            batch_sampler=[[encode_index(epoch, row) for row in batch] for batch in batches],
            collate_fn=self.collator,
            num_workers=workers,
            generator=torch.Generator(),  # otherwise a loader draws from torch's global generator
        )
        return zip(batches, loader, strict=True)

    @torch.no_grad()
    def _run(self, batch: dict[str, Any]) -> tuple[Fields, dict[str, float], RowPositions]:
        positions = RowPositions.of(batch, self.contents, present_tokens(batch))
        batch = send_to_device(batch, self.device)
        signals = forward_with_signals(self.teacher, batch, batch["rows"], recorder=self.recorder)
        return self.contents.fields(signals, batch["rows"]), self.contents.scalings(signals), positions


def split_rows(fields: Fields, positions: RowPositions, contents: CachedSignals, size: int) -> Iterator[Fields]:
    """Yield the fields of each row of a batch."""
    drawn = {f"places/{name}": torch.from_numpy(places) for name, places in positions.drawn.items()}
    parts = {
        name: value.split(positions.counts[contents.row_set(name)].tolist()) for name, value in (fields | drawn).items()
    }
    parts[CHECKSUMS] = torch.from_numpy(positions.checksums).split(1)
    return ({name: part[i].clone() for name, part in parts.items()} for i in range(size))


def join_rows(rows: Sequence[Fields], contents: CachedSignals) -> Fields:
    """Concatenate the fields of rows, and add the offsets at which each row begins."""
    fields = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    counted = {contents.row_set(name): name for name in rows[0] if name != CHECKSUMS}
    for name, field in counted.items():
        lengths = torch.tensor([0, *(len(row[field]) for row in rows)])
        fields[f"offsets/{name}"] = lengths.cumsum(0)
    return fields
