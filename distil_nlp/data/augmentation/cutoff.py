"""Token cut-off: random tokens of a training row are masked out of attention."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

_SALT = 2


@dataclass(frozen=True)
class Cutoff:
    """Drops random tokens of a row: they are not attended to and belong to no row set, in teacher and student alike.

    The ids stay in place, and the row keeps its label. After Shen et al. 2020 (arXiv:2009.13818), whose code zeroes the
    embeddings of such tokens and their attention mask, draws a tenth of the places with replacement, [CLS] and
    separators among them, and by its script takes spans. Their consistency loss between a text and its remaining tokens
    is replaced by the teacher, which reads the same tokens as the student.

    Attributes:
        share: fraction of the rows that lose tokens, drawn anew each epoch.
        probability: probability that a token of such a row is dropped.
        kept: ids that are never dropped: separators. The first token, [CLS], is not dropped either.
    """

    share: float = 1.0
    probability: float = 0.1
    kept: Collection[int] = ()
    seed: int = 0

    def __call__(self, row: dict[str, Any], epoch: int, number: int) -> dict[str, Any]:
        """Return the row with its `attention_mask`; the dropped tokens are a function of (seed, epoch, row number)."""
        generator, ids = np.random.default_rng((self.seed, epoch, number, _SALT)), np.asarray(row["input_ids"])
        if generator.random() >= self.share:
            return {"attention_mask": np.ones_like(ids).tolist(), **row}  # all rows of a batch have the same columns
        dropped = (generator.random(len(ids)) < self.probability) & ~np.isin(ids, list(self.kept))
        dropped[0] = False
        attended = np.where(dropped, 0, row.get("attention_mask", np.ones_like(ids)))
        return {**row, "attention_mask": attended.tolist()}
