"""Counts of a tokenizer's tokens in a corpus, and what a smaller vocabulary makes of texts that were not counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.splits import is_held_out

_BATCH = 1000
MOST_TEXTS = 50_000
"""Texts that are counted, at most: the first of the corpus."""
_HELD_OUT = 0.05


def texts_of(rows: Any, columns: Sequence[str]) -> list[str]:
    """Return the first texts of a corpus, of all columns; lists of words as one text, and without blank ones."""
    columns = [name for name in columns if name in (rows.column_names or columns)]
    values = (row[name] for row in rows.select_columns(columns) for name in columns)
    texts = (" ".join(map(str, value)) if isinstance(value, list) else str(value or "") for value in values)
    return [*islice((text for text in texts if text.strip()), MOST_TEXTS)]


def divided(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (texts to count, about a twentieth of them to measure on), by their content."""
    counted: list[str] = []
    held_out: list[str] = []
    for text in texts:
        (held_out if is_held_out(text, _HELD_OUT) else counted).append(text)
    return counted, held_out


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """Return how often each token is in texts, special ones left out, (tokens,)."""
    counts = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=np.int64)
    for ids in _ids(tokenizer, texts):
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def by_need(counts: np.ndarray, coverage: float = 1.0) -> list[int]:
    """Return the tokens that cover a fraction of a corpus, the most frequent first; of equal ones the lowest id.

    Tokens that never occur are left out.
    """
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    covered = np.cumsum(counts[order])
    most = np.searchsorted(covered, coverage * counts.sum() * (1 - 1e-12)) + 1
    return order[:most].tolist()


def measured(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, float]:
    """Return `unknown`, the fraction of unknown tokens in texts, and `tokens_per_word`, of words between spaces."""
    total, unknown, words = 0, 0, sum(len(text.split()) for text in texts)
    for ids in _ids(tokenizer, texts):
        total += len(ids)
        unknown += int((ids == tokenizer.unk_token_id).sum()) if tokenizer.unk_token_id is not None else 0
    return {"unknown": unknown / max(total, 1), "tokens_per_word": total / max(words, 1)}


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[np.ndarray]:
    for start in range(0, len(texts), _BATCH):
        rows: Any = tokenizer(
            list(texts[start : start + _BATCH]), add_special_tokens=False, return_attention_mask=False, verbose=False
        ).input_ids
        yield np.fromiter((number for ids in rows for number in ids), dtype=np.int64)
