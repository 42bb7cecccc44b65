"""Texts with words of the teacher: the student reads each row as it is, and with draws in its masked places.

Both are one batch of twice the rows in one forward, which is what DDP, FSDP and checkpointed activations expect. The
copies come after all rows, so that the positions of all row sets but `ordinary` stay as they are; `ordinary` ones are
of the copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from distil_nlp.signals.types import Signals


def with_sampled_text(batch: Mapping[str, Any], vocabulary: Any, words: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (what the student reads: the batch, then its rows with the teacher's words; the batch with `is_replaced`).

    Args:
        batch: of a `RowCollator` that draws `uniforms`.
        vocabulary: the teacher's logits, see `Signals.vocabulary`.
        words: number of words that the student knows; the others of a padded output are not drawn.
    """
    ids, rows, masked = batch["input_ids"], batch["rows"], batch["rows"]["masked"]
    drawn = sampled_words(batch, vocabulary, words).to(ids.dtype)
    text = ids.flatten().index_copy(0, masked, drawn).view_as(ids)
    own = batch["labels"].flatten().index_select(0, masked)
    is_replaced = torch.zeros_like(ids.flatten(), dtype=torch.bool).index_copy(0, masked, drawn != own)
    columns = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name != "uniforms"}
    read = {name: torch.cat([value, value]) for name, value in columns.items() if value.shape[:1] == ids.shape[:1]}
    read |= {"input_ids": torch.cat([ids, text]), "rows": rows | {"ordinary": rows["ordinary"] + ids.numel()}}
    return read, {**batch, "is_replaced": is_replaced.index_select(0, rows["ordinary"])}


@torch.no_grad()
def sampled_words(batch: Mapping[str, Any], vocabulary: Any, words: int) -> Tensor:
    """Return a word of the teacher's distribution for each masked token, (masked,), computed chunk by chunk."""
    rows, chunks, uniforms = batch["rows"]["logits/masked"], batch["chunks"], batch["uniforms"]
    drawn = torch.zeros_like(rows)
    for number, (first, last) in enumerate(pairwise(chunks.cuts["masked"])):
        if first == last:
            continue
        start = number * chunks.size
        logits = vocabulary.logits(start, start + chunks.size).index_select(0, rows[first:last] - start)
        drawn[first:last] = draw_words(logits[:, :words], uniforms[first:last])
    return drawn


def draw_words(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Return a draw from the softmax of each row, (rows,): the first word at which the cumulative share exceeds u.

    Args:
        logits: (rows, vocabulary).
        uniforms: u of each row, from 0 to below 1, (rows,).
    """
    shares = logits.float().softmax(-1).cumsum(-1)
    words = torch.searchsorted(shares, (uniforms * shares[:, -1])[:, None], right=True).squeeze(1)
    return words.clamp_max(logits.shape[-1] - 1)  # a broken teacher, whose shares are NaN, is told elsewhere


def of_own_text(student: Signals, size: int) -> Signals:
    """Return the signals of the first `size` rows, where whole rows were captured."""

    def first(tensor: Tensor) -> Tensor:
        return tensor[:size]

    return replace(student, attention=tree_map_only(Tensor, first, student.attention))
