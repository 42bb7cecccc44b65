"""A vocabulary's k highest logits, and the mass of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TopLogits:
    """A vocabulary's logits of which the highest are known, and of the others their sum.

    Attributes:
        words: which ones are known, (rows, k).
        values: their logits, (rows, k).
        others: log Σ exp(logit / T) over the words that are not known, (rows,), at the temperature T of their use.
    """

    words: Tensor
    values: Tensor
    others: Tensor

    @classmethod
    def of(cls, logits: Tensor, k: int, temperature: float) -> TopLogits:
        """The k highest of (rows, vocabulary)."""
        values, words = logits.topk(min(k, logits.shape[1]), dim=1)
        rest = logits.float().scatter(1, words, -math.inf) / temperature
        return cls(words, values, rest.logsumexp(1))

    def index_select(self, dim: int, rows: Tensor) -> TopLogits:
        """Some of the rows, as of a tensor."""
        return TopLogits(*(one.index_select(dim, rows) for one in (self.words, self.values, self.others)))

    def logits(self, start: int, stop: int) -> TopLogits:
        """A run of rows, as of a vocabulary that is yet to be projected."""
        return TopLogits(self.words[start:stop], self.values[start:stop], self.others[start:stop])
