"""Hashes of rows, models and tokenizers, which identify cached work."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.paths import DataPath, all_paths
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.utils.files import checksum, load_json, weight_checksums

_IGNORED_FIELDS = ("_name_or_path", "transformers_version", "architectures")
"""Fields of a configuration that change no output."""
_HASHED_BYTES = 2**31
_DATA_SUFFIXES = (
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".bz2", ".xz", ".zst", ".zip",
)  # fmt: skip


def hash_rows(rows: Any, columns: Sequence[str]) -> str:
    """Return a hash of some columns of all rows, in their order.

    A plain `datasets.Dataset` is hashed by its Arrow buffers, a gigabyte in about a second; anything else, such as a
    list or a dataset with a transform, row by row.
    """
    digest = hashlib.sha256()
    if not isinstance(rows, datasets.Dataset) or rows.format["type"] is not None:
        for i in range(len(rows)):
            row = rows[i]
            for name in (name for name in columns if name in row):
                values = np.asarray(row[name])
                digest.update(f"{name} {values.shape} {values.dtype}".encode() + values.tobytes())
        return digest.hexdigest()
    rows = rows.select_columns([name for name in columns if name in rows.column_names])
    for table in rows.with_format("arrow").iter(batch_size=10_000):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
            stream.write_table(table.replace_schema_metadata().combine_chunks())
        digest.update(sink.getbuffer())
    return digest.hexdigest()


def hash_model(model: nn.Module) -> str:
    """Return a hash of a model's class, configuration and weights; of all members of an ensemble."""
    members = [
        [type(member).__name__, {k: v for k, v in member.config.to_dict().items() if k not in _IGNORED_FIELDS}]
        for member in ensemble_members(model)
    ]
    digest = hashlib.sha256(hash_json(members).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """Return a hash of a tokenizer's vocabulary and special tokens, from which masks are drawn; None without one."""
    if tokenizer is None:
        return None
    return hash_json([sorted(tokenizer.get_vocab().items()), sorted(tokenizer.all_special_ids)])


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors and their names, independent of the class of model."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        data: Any = tensors[name].contiguous().numpy()  # a buffer, which NumPy does not declare
        digest.update(data)
    return digest.hexdigest()


def hash_values(rows: Any) -> str:
    """Return a hash of the values of all rows, whatever Arrow types, chunks or order of columns they are kept in.

    400,000 rows of a `datasets.Dataset` take about a second, ten if they are shuffled; anything else goes row by row.
    """
    if not isinstance(rows, datasets.Dataset):
        return hash_rows(rows, sorted(rows[0]) if len(rows) else [])
    digest = hashlib.sha256()
    for table in rows.with_format("arrow").iter(batch_size=10_000):
        for name in sorted(table.column_names):
            digest.update(name.encode())
            for part in _values(table[name].combine_chunks()):
                digest.update(part)
    return digest.hexdigest()


def _values(column: pa.Array) -> Iterator[bytes]:
    """Yield the lengths of lists and the values in them, numbers as 64 bits."""
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield _numbers(pc.list_value_length(column), pa.int64())
        column = pc.list_flatten(column)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        yield _numbers(column, pa.int64())
    elif pa.types.is_floating(column.type):
        yield _numbers(column, pa.float64())
    else:
        yield repr(column.to_pylist()).encode()


def _numbers(column: pa.Array, kind: pa.DataType) -> bytes:
    """Return numbers as bytes, and where there are none."""
    missing = column.is_null().to_numpy(zero_copy_only=False).tobytes() if column.null_count else b""
    return column.cast(kind).fill_null(0).to_numpy(zero_copy_only=False).tobytes() + missing


def hash_model_files(folder: Path) -> str:
    """Return a hash of a model folder's configuration and of all its weights, in one file or in shards."""
    config = folder / "config.json"
    try:
        settings = {name: value for name, value in load_json(config).items() if name not in _IGNORED_FIELDS}
    except (OSError, ValueError):  # whoever loads the model says what is wrong
        settings = {}
    return hash_json([settings, weight_checksums(folder)])


def hash_data_files(path: DataPath) -> str | None:
    """Return a hash of local data files; None where one is not there, as for a name on the Hub.

    Beyond two gigabytes it is of their sizes and of both ends of each.
    """
    places = [Path(one).expanduser() for one in all_paths(path)]
    if not all(place.exists() for place in places):
        return None
    found = [file for place in places for file in _files_of(place)]
    is_large = sum(file.stat().st_size for file in found) > _HASHED_BYTES
    digest = _hash_ends if is_large else checksum
    return hash_json([[file.name, file.stat().st_size, digest(file)] for file in found])


def _files_of(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(file for file in place.rglob("*") if _is_data(file, place))


def _is_data(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in _DATA_SUFFIXES and file.is_file()


def _hash_ends(file: Path, size: int = 2**20) -> str:
    """Return a hash of the first and the last megabyte of a file."""
    with file.open("rb") as data:
        digest = hashlib.sha256(data.read(size))
        data.seek(max(file.stat().st_size - size, 0))
        digest.update(data.read(size))
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Return a hash of a value as JSON, independent of the order of its keys; other objects as strings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
