"""By what a cache is known: all that a teacher's answers depend on."""

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
"""Of the way in which answers are computed and stored; another one makes other caches."""
_LABELS = {"labels", "label", "label_ids"}


def cache_key(
    teacher: nn.Module, rows: Any, collator: RowCollator, contents: CachedSignals, epochs: int
) -> dict[str, Any]:
    """What must be the same for answers to be used again.

    Args:
        rows: tokenised; what of them the teacher or a draw looks at counts, labels do not.
        collator: its settings count, its tokenizer's words, and its seed where a row set is drawn.
        epochs: for how many epochs' draws answers are kept.
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
        "seed": collator.seed if contents.draws() else None,
    }
    return json.loads(json.dumps(key, default=str))  # as it is read back


def cache_fingerprint(key: Mapping[str, Any]) -> str:
    """A short name for a key."""
    return hash_json(key)[:16]


def _settings(collator: Any) -> dict[str, Any]:
    """A collator's class and what it was made with, but for its tokenizer."""
    fields = dataclasses.fields(collator) if dataclasses.is_dataclass(collator) else ()
    values = {one.name: _plain(getattr(collator, one.name)) for one in fields if one.name != "tokenizer"}
    return {"class": type(collator).__name__, **values}


def _plain(value: Any) -> Any:
    return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, np.ndarray) else value
