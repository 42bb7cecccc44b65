"""Hashes of rows, models and tokenizers, which identify cached work."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from distil_nlp.models.architecture import ensemble_members
from distil_nlp.utils.files import checksum

_IGNORED_FIELDS = ("_name_or_path", "transformers_version", "architectures")
"""Fields of a configuration that change no output."""


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
        digest.update(tensors[name].contiguous().numpy())
    return digest.hexdigest()


def hash_weight_file(folder: Path) -> str | None:
    """Return a hash of a model folder's `model.safetensors`; None where there is none, as for a name on the Hub."""
    weights = folder / "model.safetensors"
    return checksum(weights) if weights.is_file() else None


def hash_json(value: Any) -> str:
    """Return a hash of a value as JSON, independent of the order of its keys; other objects as strings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
