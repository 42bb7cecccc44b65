"""The cache's files: shards that are read by memory map, each with its checksum.

```
<folder>/
  cache.json                       the key, and how rows fall into shards
  0/00000.safetensors, …           epoch 0 of draws; rows 0 to shard_rows − 1, …
  0/00000.json                     written last: the shard's size, checksum and what reading needs besides
```

A shard holds each field for all its rows, one after the other, and for each row set the offsets at which its rows begin
(`offsets/<set>`); of sets that are drawn at random also which tokens they were (`places/<set>`), and of each row a
checksum of the tokens that the teacher saw (`checksums`).
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
from distil_nlp.utils.files import atomic_file, checksum, write_atomically
from distil_nlp.utils.settings import changed_keys

MANIFEST = "cache.json"
_OPEN_SHARDS = 256
_NOTHING = np.empty(0, np.int32)
CHECKSUMS = "checksums"
_ROW_FIELDS = ("offsets/", "places/", CHECKSUMS)
"""Beginnings of the names of what is no field."""


@dataclass(frozen=True)
class ShardLayout:
    """How a cache's rows fall into shards: `rows` of `epochs` draws, `shard_rows` to a shard."""

    rows: int
    epochs: int
    shard_rows: int

    def shards(self) -> list[tuple[int, int]]:
        """(epoch, number) of every shard."""
        count = -(-self.rows // self.shard_rows)
        return [(epoch, number) for epoch in range(self.epochs) for number in range(count)]

    def rows_of(self, number: int) -> range:
        return range(number * self.shard_rows, min((number + 1) * self.shard_rows, self.rows))


class TeacherCache:
    """The answers of a teacher for each training row, and for several epochs' masks where rows are masked.

    Args:
        folder: where its files are.
        key: what it must have been made of (`cache_key`).

    Raises:
        UserError: if the folder's cache was made of something else, or cannot be read.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], contents: CachedSignals):
        about = read_manifest(folder)
        other = changed_keys(about["key"], key)
        if other:
            raise UserError(
                "teacher.cache",
                f"a cache made of this teacher and data in {folder}",
                f"one that differs in {', '.join(other)}",
                why="its answers would belong to other questions",
                fix="delete it, or name another teacher.cache.folder",
            )
        self.folder, self.contents, self.layout = folder, contents, ShardLayout(**about["layout"])

    def missing(self) -> list[tuple[int, int]]:
        """Shards that are not there, not whole, or not what was written."""
        return [shard for shard in self.layout.shards() if not self._is_whole(shard)]

    def _is_whole(self, shard: tuple[int, int]) -> bool:
        data, about = self._paths(shard)
        try:
            told = json.loads(about.read_text())
            return checksum(data) == told["sha256"] and told["rows"] == len(self.layout.rows_of(shard[1]))
        except (OSError, ValueError, KeyError):
            return False

    def _paths(self, shard: tuple[int, int]) -> tuple[Path, Path]:
        epoch, number = shard
        stem = self.folder / str(epoch) / f"{number:05d}"
        return stem.with_suffix(".safetensors"), stem.with_suffix(".json")

    def write(self, shard: tuple[int, int], fields: Fields, about: Mapping[str, Any]) -> int:
        """Writes a shard, there whole or not at all; its bytes."""
        data, told = self._paths(shard)
        data.parent.mkdir(parents=True, exist_ok=True)
        size, digest = write_shard(data, fields)
        count = len(self.layout.rows_of(shard[1]))
        write_atomically(told, json.dumps({"bytes": size, "sha256": digest, "rows": count, **about}))
        _open.cache_clear()  # what it had been is another file
        return size

    def lookup(self, rows: Sequence[int], epochs: Sequence[int], batch: Mapping[str, Any], attended: Any) -> Fields:
        """What the teacher says of a batch: each field's rows one after the other; queries and keys padded.

        Args:
            rows: numbers of training rows; one that only fills up a batch has no tokens, and is not read.
            epochs: the epoch that each is drawn in.
            batch: with its row sets, as the collator made it.
            attended: which tokens count, (batch, seq).

        Raises:
            UserError: if the teacher was asked about other tokens, or other ones of them.
        """
        places = RowPositions.of(batch, self.contents, attended)
        seen: dict[str, list[Tensor]] = {}
        begun = dict.fromkeys(places.counts, 0)
        for i, (row, epoch) in enumerate(zip(rows, epochs, strict=True)):
            counts = {name: int(of_each[i]) for name, of_each in places.counts.items()}
            if not any(counts.values()):
                continue
            number, at = divmod(row, self.layout.shard_rows)
            shard = self._shard((epoch % self.layout.epochs, number))
            self._check_tokens(row, shard, at, places.checksums[i])
            slices = {name: slice(*shard[f"offsets/{name}"][at : at + 2].tolist()) for name in counts}
            for name, count in counts.items():
                here = slice(begun[name], begun[name] + count)
                self._check(row, name, count, places.drawn.get(name, _NOTHING)[here], slices[name], shard)
                begun[name] = here.stop
            for field, values in shard.items():
                if not field.startswith(_ROW_FIELDS):
                    seen.setdefault(field, []).append(values[slices[self.contents.set_of(field)]])
        fields = {field: torch.cat(parts) for field, parts in seen.items()} or self._nothing()
        is_layer = [name for name in fields if name.startswith(TOKEN_FIELDS)]
        return fields | {name: _padded(fields[name], batch["rows"]["all"], attended.shape) for name in is_layer}

    def _nothing(self) -> Fields:
        """The fields of no rows, for a batch that only fills up."""
        shard = self._shard(self.layout.shards()[0])
        return {name: value[:0].clone() for name, value in shard.items() if not name.startswith(_ROW_FIELDS)}

    def _check_tokens(self, row: int, shard: Fields, at: int, checksum: int) -> None:
        if int(shard[CHECKSUMS][at]) != checksum:
            raise UserError(
                "teacher.cache",
                f"row {row} as the teacher saw it",
                "it with other tokens or masks",
                why="it would learn answers to another question",
                fix=f"delete {self.folder}; masks must be a function of epoch and row",
            )

    def _check(self, row: int, name: str, count: int, drawn: np.ndarray, where: slice, shard: Fields) -> None:
        kept = where.stop - where.start
        same = kept == count
        if same and f"places/{name}" in shard:
            same = np.array_equal(shard[f"places/{name}"][where].numpy(), drawn)
        if not same:
            raise UserError(
                "teacher.cache",
                f"the {kept} {name} tokens of row {row} that the teacher was asked about",
                f"{count}, not the same",
                why="each would learn another one's answer",
                fix=f"delete {self.folder}",
            )

    def _shard(self, shard: tuple[int, int]) -> Fields:
        return _open(str(self._paths(shard)[0]))

    @cached_property
    def _scalings(self) -> dict[str, float]:
        return json.loads(self._paths(self.layout.shards()[0])[1].read_text())["scalings"]

    def signals(self, fields: Fields, attention_mask: Tensor | None) -> Signals:
        """What the terms see."""
        return self.contents.signals(fields, self._scalings, attention_mask)


def _padded(states: Tensor, tokens: Tensor, shape: tuple[int, int]) -> Tensor:
    """(tokens, heads, head width) at their places in a batch: (batch, heads, seq, head width)."""
    whole = states.new_zeros(shape[0] * shape[1], *states.shape[1:])
    whole[tokens] = states
    return whole.unflatten(0, shape).transpose(1, 2)


@lru_cache(_OPEN_SHARDS)
def _open(path: str) -> Fields:
    """A shard's tensors, mapped from the file: nothing is read before it is looked at."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            "teacher.cache",
            f"a shard at {path}",
            f"{error}",
            why="the teacher's answers are lost",
            fix="start again: what is missing is built anew",
        ) from error


def write_shard(path: Path, fields: Fields) -> tuple[int, str]:
    """(bytes, checksum) of a file that is there whole or not at all."""
    with atomic_file(path) as partial:
        save_file(fields, partial)
        return partial.stat().st_size, checksum(partial)


def write_first(path: Path, text: str) -> None:
    """A file as the first to write it wrote it: of two runs that begin at once both go by one layout."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    with contextlib.suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `cache.json` says."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            "teacher.cache",
            f"{MANIFEST} in {folder}",
            f"{error}",
            why="nobody knows what its answers are of",
            fix="delete the folder",
        ) from error
