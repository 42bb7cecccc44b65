"""The key of a cache: everything that the teacher's outputs depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from distil_nlp.data.fingerprint import hash_json, hash_model, hash_rows, hash_tokenizer
from distil_nlp.data.row_sets import RowCollator
from distil_nlp.teachers.cache.contents import CachedSignals

CACHE_VERSION = 1
"""Version of computation and storage; caches of another version are not used."""
_LABELS = {"labels", "label", "label_ids"}
_TOKENIZERS = ("tokenizer", "encodings")


def cache_key(
    teacher: nn.Module, rows: Any, collator: RowCollator, contents: CachedSignals, epochs: int
) -> dict[str, Any]:
    """Return the settings and hashes that must be equal for cached outputs to be reused.

    Args:
        rows: tokenised; the columns that the teacher or a draw reads are hashed, labels are not.
        collator: its settings and its tokenizer's vocabulary are part of the key, and its seed if a row set is random.
        epochs: number of epochs whose draws are cached.
    """
    key = {
        "version": CACHE_VERSION,
        "teacher": hash_model(teacher),
        "rows": hash_rows(rows, sorted(collator.columns - _LABELS)),
        "collator": _settings(collator.collate),
        "tokenizer": hash_tokenizer(getattr(collator.collate, "tokenizer", None)),
        "contents": contents.to_dict(),
        "head": sorted(collator.sets.logits) if contents.logits == "head" else None,
        "epochs": epochs,
        "seed": collator.seed if contents.random_row_sets() else None,
    }
    mixing = getattr(teacher, "mixing", None)  # of an ensemble, which is cached as one model
    if mixing is not None and len(set(mixing.weights)) > 1:
        key["weights"] = mixing.shares
    return json.loads(json.dumps(key, default=str))  # equal to the key that is read from disk


def cache_fingerprint(key: Mapping[str, Any]) -> str:
    """Return a short hash of a key."""
    return hash_json(key)[:16]


def _settings(collator: Any) -> dict[str, Any]:
    """Return a collator's class and fields, without its tokenizers."""
    fields = dataclasses.fields(collator) if dataclasses.is_dataclass(collator) else ()
    values = {field.name: _plain(getattr(collator, field.name)) for field in fields if field.name not in _TOKENIZERS}
    return {"class": type(collator).__name__, **values}


def _plain(value: Any) -> Any:
    return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, np.ndarray) else value
