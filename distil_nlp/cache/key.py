"""By what a cache is known: all that a teacher's answers depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distil_nlp.architecture import members
from distil_nlp.cache.contents import Contents
from distil_nlp.rows import RowCollator

VERSION = 1
"""Of the way in which answers are computed and stored; another one makes other caches."""
_NO_MATTER = ("_name_or_path", "transformers_version", "architectures")
"""Fields of a configuration that change no answer."""
_LABELS = {"labels", "label", "label_ids"}


def make_key(teacher: nn.Module, rows: Any, collator: RowCollator, contents: Contents, epochs: int) -> dict[str, Any]:
    """What must be the same for answers to be used again.

    Args:
        rows: tokenised; what of them the teacher or a draw looks at counts, labels do not.
        collator: its settings count, its tokenizer's words, and its seed where a row set is drawn.
        epochs: for how many epochs' draws answers are kept.
    """
    key = {
        "version": VERSION,
        "teacher": hash_model(teacher),
        "rows": hash_rows(rows, sorted(collator.columns - _LABELS)),
        "collator": _settings(collator.collate),
        "tokenizer": hash_tokenizer(getattr(collator.collate, "tokenizer", None)),
        "contents": contents.to_dict(),
        "head": sorted(collator.sets.logits) if contents.logits == "head" else None,
        "epochs": epochs,
        "seed": collator.seed if contents.draws() else None,
    }
    return json.loads(json.dumps(key, default=str))  # as it is read back


def fingerprint_of(key: Mapping[str, Any]) -> str:
    """A short name for a key."""
    return _hash_json(key)[:16]


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """The parts in which two keys differ."""
    return [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]


def hash_rows(rows: Any, columns: Sequence[str]) -> str:
    """Of some columns of all rows, in their order. Of a plain `datasets.Dataset` in Arrow's own bytes, a gigabyte in
    about a second; of anything else, such as a list or rows that are transformed when they are read, row by row."""
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
    """Of its class, its configuration and every weight; of an ensemble, of all its members."""
    told = [
        [type(one).__name__, {name: value for name, value in one.config.to_dict().items() if name not in _NO_MATTER}]
        for one in members(model)
    ]
    digest = hashlib.sha256(_hash_json(told).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """Of its words and which of them are special: what masks are drawn from."""
    if tokenizer is None:
        return None
    return _hash_json([sorted(tokenizer.get_vocab().items()), sorted(tokenizer.all_special_ids)])


def _settings(collator: Any) -> dict[str, Any]:
    """A collator's class and what it was made with, but for its tokenizer."""
    fields = dataclasses.fields(collator) if dataclasses.is_dataclass(collator) else ()
    values = {one.name: _plain(getattr(collator, one.name)) for one in fields if one.name != "tokenizer"}
    return {"class": type(collator).__name__, **values}


def _plain(value: Any) -> Any:
    return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, np.ndarray) else value


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
