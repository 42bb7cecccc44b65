"""The files of a cache: memory-mapped shards with checksums.

```
<folder>/
  cache.json                       the key, and the layout of rows in shards
  0/00000.safetensors, …           epoch 0 of draws; rows 0 to shard_rows − 1, …
  0/00000.json                     written last: the shard's size, checksum and metadata for reading
```

A shard holds each field of all its rows, concatenated, and for each row set the offsets at which its rows begin
(`offsets/<set>`); for randomly drawn sets also the positions of their tokens (`places/<set>`), and for each row a
checksum of the tokens that the teacher read (`checksums`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.signals.types import Signals
from distil_nlp.teachers.cache.contents import TOKEN_FIELDS, CachedSignals, Fields, RowPositions
from distil_nlp.utils.files import atomic_file, checksum, load_json, write_atomically
from distil_nlp.utils.settings import changed_keys

MANIFEST = "cache.json"
_OPEN_SHARDS = 256
_NO_TOKENS = np.empty(0, np.int32)
CHECKSUMS = "checksums"
_ROW_FIELDS = ("offsets/", "places/", CHECKSUMS)
"""Prefixes of the tensors of a shard that are not fields."""


@dataclass(frozen=True)
class ShardLayout:
    """The layout of rows in shards.

    Attributes:
        rows: number of training rows.
        epochs: number of epochs whose draws are cached.
        shard_rows: rows of a shard.
    """

    rows: int
    epochs: int
    shard_rows: int

    def shards(self) -> list[tuple[int, int]]:
        """Return (epoch, number) of every shard."""
        count = -(-self.rows // self.shard_rows)
        return [(epoch, number) for epoch in range(self.epochs) for number in range(count)]

    def rows_of(self, number: int) -> range:
        """Return the rows of a shard by its number."""
        return range(number * self.shard_rows, min((number + 1) * self.shard_rows, self.rows))


class TeacherCache:
    """The cached outputs of a teacher for each training row, and for the masks of several epochs if rows are masked.

    Args:
        folder: the folder of its files.
        key: the key that the cache must have (`cache_key`).

    Raises:
        UserError: if the cache has another key, or its manifest cannot be read.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], contents: CachedSignals):
        manifest = read_manifest(folder)
        changed = changed_keys(manifest["key"], key)
        if changed:
            raise UserError(
                "teacher.cache",
                f"a cache of this teacher and data in {folder}",
                f"one that differs in {', '.join(changed)}",
                why="its outputs would belong to another teacher or to other rows",
                fix="delete it, or name another teacher.cache.folder",
            )
        self.folder, self.contents, self.layout = folder, contents, ShardLayout(**manifest["layout"])

    def missing(self) -> list[tuple[int, int]]:
        """Return the shards that are missing, incomplete or damaged."""
        return [shard for shard in self.layout.shards() if not self._is_whole(shard)]

    def _is_whole(self, shard: tuple[int, int]) -> bool:
        data, metadata_file = self._paths(shard)
        try:
            metadata = load_json(metadata_file, sha256=str, rows=int, scalings=dict)
            return checksum(data) == metadata["sha256"] and metadata["rows"] == len(self.layout.rows_of(shard[1]))
        except (OSError, ValueError):
            return False

    def _paths(self, shard: tuple[int, int]) -> tuple[Path, Path]:
        epoch, number = shard
        stem = self.folder / str(epoch) / f"{number:05d}"
        return stem.with_suffix(".safetensors"), stem.with_suffix(".json")

    def write(self, shard: tuple[int, int], fields: Fields, metadata: Mapping[str, Any]) -> int:
        """Write a shard atomically, and return its size in bytes."""
        data, metadata_file = self._paths(shard)
        data.parent.mkdir(parents=True, exist_ok=True)
        size, digest = write_shard(data, fields)
        count = len(self.layout.rows_of(shard[1]))
        write_atomically(metadata_file, json.dumps({"bytes": size, "sha256": digest, "rows": count, **metadata}))
        _open.cache_clear()  # an open shard at this path is the old file
        return size

    def lookup(self, rows: Sequence[int], epochs: Sequence[int], batch: Mapping[str, Any], attended: Any) -> Fields:
        """Return the cached fields of a batch: each field's rows concatenated; queries and keys padded.

        Args:
            rows: numbers of training rows; a filler has no tokens, and is not read.
            epochs: the epoch of each row.
            batch: a batch of the collator, with its row sets.
            attended: True for tokens that are not padding, (batch, seq).

        Raises:
            UserError: if the teacher read other tokens, or other row sets were drawn.
        """
        positions = RowPositions.of(batch, self.contents, attended)
        parts: dict[str, list[Tensor]] = {}
        starts = dict.fromkeys(positions.counts, 0)
        for i, (row, epoch) in enumerate(zip(rows, epochs, strict=True)):
            counts = {name: int(row_counts[i]) for name, row_counts in positions.counts.items()}
            if not any(counts.values()):
                continue
            number, index = divmod(row, self.layout.shard_rows)
            shard = self._shard((epoch % self.layout.epochs, number))
            self._check_tokens(row, shard, index, positions.checksums[i])
            slices = {name: slice(*shard[f"offsets/{name}"][index : index + 2].tolist()) for name in counts}
            for name, count in counts.items():
                own = slice(starts[name], starts[name] + count)
                self._check_row_set(row, name, count, positions.drawn.get(name, _NO_TOKENS)[own], slices[name], shard)
                starts[name] = own.stop
            for field, values in shard.items():
                if not field.startswith(_ROW_FIELDS):
                    parts.setdefault(field, []).append(values[slices[self.contents.row_set(field)]])
        fields = {field: torch.cat(values) for field, values in parts.items()} or self._empty_fields()
        token_fields = [name for name in fields if name.startswith(TOKEN_FIELDS)]
        return fields | {name: _padded(fields[name], batch["rows"]["all"], attended.shape) for name in token_fields}

    def _empty_fields(self) -> Fields:
        """Return fields without rows, for a batch of fillers."""
        shard = self._shard(self.layout.shards()[0])
        return {name: value[:0].clone() for name, value in shard.items() if not name.startswith(_ROW_FIELDS)}

    def _check_tokens(self, row: int, shard: Fields, index: int, checksum: int) -> None:
        if int(shard[CHECKSUMS][index]) != checksum:
            raise UserError(
                "teacher.cache",
                f"row {row} with the tokens that the teacher read",
                "other tokens or masks",
                why="the student would learn outputs for other inputs",
                fix=f"delete {self.folder}; masks must be a function of epoch and row",
            )

    def _check_row_set(self, row: int, name: str, count: int, drawn: np.ndarray, part: slice, shard: Fields) -> None:
        cached = part.stop - part.start
        is_same = cached == count
        if is_same and f"places/{name}" in shard:
            is_same = np.array_equal(shard[f"places/{name}"][part].numpy(), drawn)
        if not is_same:
            raise UserError(
                "teacher.cache",
                f"the {cached} {name} tokens of row {row} that are in the cache",
                f"{count}, not the same",
                why="tokens would be trained with the outputs of other tokens",
                fix=f"delete {self.folder}",
            )

    def _shard(self, shard: tuple[int, int]) -> Fields:
        return _open(str(self._paths(shard)[0]))

    @cached_property
    def _scalings(self) -> dict[str, float]:
        return json.loads(self._paths(self.layout.shards()[0])[1].read_text())["scalings"]

    def signals(self, fields: Fields, attention_mask: Tensor | None) -> Signals:
        """Return the signals for the terms of the objective."""
        return self.contents.signals(fields, self._scalings, attention_mask)


def _padded(states: Tensor, tokens: Tensor, shape: tuple[int, int]) -> Tensor:
    """Scatter (tokens, heads, head width) to their positions in a batch: (batch, heads, seq, head width)."""
    whole = states.new_zeros(shape[0] * shape[1], *states.shape[1:])
    whole[tokens] = states
    return whole.unflatten(0, shape).transpose(1, 2)


@lru_cache(_OPEN_SHARDS)
def _open(path: str) -> Fields:
    """Return a shard's tensors, memory-mapped, so that values are read from disk only when they are used."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            "teacher.cache",
            f"a shard at {path}",
            str(error),
            why="cached teacher outputs cannot be read",
            fix="start again: missing shards are rebuilt",
        ) from error


def write_shard(path: Path, fields: Fields) -> tuple[int, str]:
    """Write a file atomically, and return its (size in bytes, checksum)."""
    with atomic_file(path) as partial:
        save_file(fields, partial)
        return partial.stat().st_size, checksum(partial)


def write_first(path: Path, text: str) -> None:
    """Write a file unless it exists, so that two runs that start at the same time use the same layout."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    with contextlib.suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of `cache.json`.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        manifest = load_json(folder / MANIFEST, key=dict, layout=dict)
        if manifest["layout"].keys() != ShardLayout.__dataclass_fields__.keys():
            raise ValueError("no usable layout")
        return manifest
    except (OSError, ValueError) as error:
        raise UserError(
            "teacher.cache",
            f"{MANIFEST} in {folder}",
            str(error),
            why="it is unknown which teacher and rows it belongs to",
            fix="delete the folder",
        ) from error
