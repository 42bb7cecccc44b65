"""`Partners`: of each token of a batch the tokens of another tokenizer that cover its characters, or that equal it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distil_nlp.data.token_alignment import PARTNERS, STARTS, STOPS
from distil_nlp.errors import UserError
from distil_nlp.tasks.kind import ALIGNED, MATCHED


@dataclass(frozen=True)
class Partners:
    """Flat positions in the other batch, (batch × seq,) by the flat positions in the student's.

    Attributes:
        starts, stops: the first of a token's partners, and the one behind the last; equal where there is none.
        equals: the one token that is the same word, or the first of the same word; −1 where there is none.
    """

    starts: np.ndarray
    stops: np.ndarray
    equals: np.ndarray

    @classmethod
    def of(cls, features: Sequence[Mapping[str, Any]], own: np.ndarray, other: np.ndarray) -> Partners:
        """Return the partners of the tokens of a batch.

        Args:
            features: rows with the columns of `token_alignment`.
            own, other: True for tokens that are not padding, (batch, seq), in the student's batch and in the other.

        Raises:
            UserError: for rows without these columns.
        """
        if STARTS not in features[0]:
            raise UserError(
                None,
                f"rows with {STARTS} and {STOPS}, where terms compare the tokens of two tokenizers",
                ", ".join(features[0]),
                why="nothing tells which tokens cover the same characters",
                fix="load them with encodings: load_task(…, encodings={'teacher_': tokenizer})",
            )
        starts, stops, equals = (np.full(own.size, empty) for empty in (0, 0, -1))
        for i, row in enumerate(features):
            places, first = np.flatnonzero(own[i]) + i * own.shape[1], i * other.shape[1] + other[i].argmax()
            has_any = np.asarray(row[STOPS]) > 0
            starts[places[has_any]] = np.asarray(row[STARTS])[has_any] + first
            stops[places[has_any]] = np.asarray(row[STOPS])[has_any] + first
            if PARTNERS in row:
                known = np.asarray(row[PARTNERS]) >= 0
                equals[places[known]] = np.asarray(row[PARTNERS])[known] + first
        return cls(starts, stops, equals)

    def with_any(self, name: str, places: np.ndarray) -> np.ndarray:
        """Return those of a set's positions that have partners, or an equal where the set's name says so."""
        found = self.equals >= 0 if name.startswith(MATCHED) else self.stops > self.starts
        return places[found[places]]

    def bags(self, name: str, places: np.ndarray, among: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the partners of a set's tokens, and where those of each token begin, as `embedding_bag` takes them.

        Args:
            name: of the set.
            places: its positions, each with a partner.
            among: flat positions in the other batch, in order, by whose numbers partners are told.
        """
        starts, stops = self.starts[places], self.stops[places]
        if not name.startswith(ALIGNED):
            starts, stops = self.equals[places], self.equals[places] + 1
        counts = stops - starts
        begins = np.cumsum(counts) - counts
        partners = np.arange(counts.sum()) + np.repeat(starts - begins, counts)
        return torch.from_numpy(np.searchsorted(among, partners)), torch.from_numpy(begins)


def means_of(states: Tensor, bags: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of each token's partners, (tokens, width); that of one alone is the partner itself.

    Args:
        states: of all tokens of the other batch, (rows, width).
        bags: see `Partners.bags`.
    """
    partners, begins = bags
    return torch.nn.functional.embedding_bag(partners, states, begins, mode="mean")
