"""Two passes over a batch in one forward: each row is there twice, side by side, and dropout is drawn for both.

The row sets are drawn, the teacher is asked and its cache is read for the batch as it is; only then is it doubled. Row
i becomes rows 2i and 2i + 1, in columns, row sets and signals alike, so that the two passes over a row stay together
where the logits of a vocabulary are computed chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from distil_nlp.data.augmentation.mixup import MIXUP_COLUMNS
from distil_nlp.data.row_sets import Chunks
from distil_nlp.signals.attention import QueriesKeys
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.signals.types import Signals
from distil_nlp.tasks import TaskKind


def doubled_batch(batch: Mapping[str, Any], kind: TaskKind) -> dict[str, Any]:
    """Return a batch of a `RowCollator` with each row twice; `passes` tells it from one that is read once."""
    length, size = batch["input_ids"].shape[1], len(batch["input_ids"])
    columns = {
        name: twice(value) for name, value in batch.items() if isinstance(value, Tensor) and value.shape[:1] == (size,)
    }
    rows = {name: _doubled_places(name, places, length, kind) for name, places in batch["rows"].items()}
    doubled = {**batch, **columns, "rows": rows, "passes": 2}
    if "chunks" in batch:
        chunks = batch["chunks"]
        cuts = {name: [2 * cut for cut in cuts] for name, cuts in chunks.cuts.items()}
        doubled["chunks"] = Chunks(2 * chunks.size, cuts)
    return doubled


def doubled_signals(signals: Signals) -> Signals:
    """Return a teacher's signals of a batch as those of `doubled_batch`; weights are no rows, and stay as they are."""
    by_rows = {name: getattr(signals, name) for name in ("logits", "hidden", "activations", "input_gradient")}
    attention = {layer: _doubled_attention(one) for layer, one in signals.attention.items()}
    vocabulary = signals.vocabulary and DoubledVocabulary(signals.vocabulary)
    doubled = tree_map_only(Tensor, twice, by_rows)
    return Signals(**doubled, attention=attention, weights=signals.weights, vocabulary=vocabulary)


@dataclass(frozen=True)
class DoubledVocabulary:
    """Logits of a vocabulary, of each row twice; they are computed once.

    Attributes:
        vocabulary: `LazyLogits` or `TopLogits` of each row once.
    """

    vocabulary: Any

    def logits(self, start: int, stop: int) -> Any:
        """Return the logits of rows `start` to `stop`, both even, as `LazyLogits.logits` does."""
        once = self.vocabulary.logits(start // 2, stop // 2)
        if isinstance(once, TopLogits):
            return TopLogits(twice(once.words), twice(once.values), twice(once.others))
        return twice(once)


def twice(tensor: Tensor) -> Tensor:
    """Return (2 · rows, …): each row twice, side by side."""
    return tensor.repeat_interleave(2, 0)


def _doubled_attention(attention: Any) -> Any:
    if not isinstance(attention, QueriesKeys):
        return tree_map_only(Tensor, twice, attention)
    query, key, value, mask = attention.query, attention.key, attention.value, attention.mask
    if mask is not None and len(mask) == len(query):  # else it is the same for all rows
        mask = twice(mask)
    return QueriesKeys(
        twice(query),
        twice(key),
        attention.scaling,
        mask,
        value if value is None else twice(value),
    )


def _doubled_places(name: str, places: Tensor, length: int, kind: TaskKind) -> Tensor:
    """Return a row set of the doubled batch.

    Args:
        name: of the row set.
        places: positions in the batch, among its logits or, flat, in (batch × seq); or a column of mixup.
        length: tokens of a row.
        kind: kind of task.
    """
    if name in MIXUP_COLUMNS:
        return twice(places)
    if kind.is_of_sequences(name) or name.startswith("logits/"):
        first, step = 2 * places, 1
    else:
        first, step = places + places // length * length, length
    return torch.stack([first, first + step], 1).flatten()
