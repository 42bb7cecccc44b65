"""The k highest logits of a vocabulary, and the tail probability of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TopLogits:
    """The highest logits of a vocabulary, and the log-sum-exp of all others.

    Attributes:
        words: the indices of the highest logits, (rows, k).
        values: their logits, (rows, k).
        others: log Σ exp(logit / T) over all other words, (rows,), at the temperature T of their use.
    """

    words: Tensor
    values: Tensor
    others: Tensor

    @classmethod
    def of(cls, logits: Tensor, k: int, temperature: float) -> TopLogits:
        """Return the k highest of (rows, vocabulary) logits."""
        values, words = logits.topk(min(k, logits.shape[1]), dim=1)
        others = logits.float().scatter(1, words, -math.inf) / temperature
        return cls(words, values, others.logsumexp(1))

    def index_select(self, dim: int, rows: Tensor) -> TopLogits:
        """Return some of the rows, as `Tensor.index_select` does."""
        return TopLogits(*(part.index_select(dim, rows) for part in (self.words, self.values, self.others)))

    def logits(self, start: int, stop: int) -> TopLogits:
        """Return rows `start` to `stop`, as `LazyLogits.logits` does."""
        return TopLogits(self.words[start:stop], self.values[start:stop], self.others[start:stop])
