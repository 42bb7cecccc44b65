"""Alignment of the tokens of two tokenizers that read the same text, by the characters that they cover.

A row's columns say of each token of the student's which tokens of the first further encoding cover some of its
characters (`partner_starts`, `partner_stops`), and which one token is its equal (`partners`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import BatchEncoding

STARTS, STOPS, PARTNERS = "partner_starts", "partner_stops", "partners"
"""Columns, (tokens,): first of a token's partners, the one behind the last (0 and 0 without any), its equal or −1."""
_SPECIAL = -1


@dataclass(frozen=True)
class Spans:
    """The places of a row's tokens in its text; each token has a width.

    Attributes:
        units: number of the text, or of the word where a row is a list of words; negative for special tokens, which are
            before the first text, between the two, or behind the last.
        starts, stops: first place, and the one behind the last, (tokens,). Character c is from 2c + 1 to 2c + 2, what
            is before it from 2c to 2c + 1. Tokens of the same characters have equal parts of their place each.
    """

    units: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, encoded: BatchEncoding, row: int, texts: Sequence[Any]) -> Spans:
        """Return the places of a row's tokens, as a fast tokenizer gives them, without spaces around.

        Args:
            texts: columns of texts, or one column of lists of words, that were tokenised.
        """
        own: Any = encoded.encodings
        words = not isinstance(texts[0][row], str)
        units = encoded.word_ids(row) if words else encoded.sequence_ids(row)
        strings = texts[0][row] if words else [column[row] for column in texts]
        sides, gap, places = encoded.sequence_ids(row), 0, []
        for unit, side, (start, stop) in zip(units, sides, _characters(units, own[row].offsets), strict=True):
            gap = gap if side is None else side + 1
            places.append((_SPECIAL - gap, 0, 1) if unit is None else (unit, *_place(strings[unit], start, stop)))
        return cls(*_in_parts(np.array(places, dtype=np.int64).reshape(-1, 3)))


def overlaps(student: Spans, teacher: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Return of each of the student's tokens the teacher's tokens that overlap it: the first, and behind the last.

    Both are 0 where there is none.
    """
    shared = student.units[:, None] == teacher.units
    shared &= (student.starts[:, None] < teacher.stops) & (teacher.starts < student.stops[:, None])
    has_any = shared.any(1)
    first, last = shared.argmax(1), shared.shape[1] - shared[:, ::-1].argmax(1)
    return np.where(has_any, first, 0), np.where(has_any, last, 0)


def _characters(units: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the characters of each token: none for a mark of a word's start that claims the first of the next token.

    SentencePiece's lone ▁ at the start of a text has the offsets of the text's first character.
    """
    found = [*offsets]
    tokens = zip(units, offsets, strict=True)
    for i, ((unit, (start, stop)), (after, (next_start, next_stop))) in enumerate(itertools.pairwise(tokens)):
        if unit == after and start == next_start and stop < next_stop:
            found[i] = (start, start)
    return found


def _place(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the place of characters without the spaces around them; of spaces alone, what is before the next one."""
    own = text[start:stop]
    if not own.strip():
        return 2 * stop, 2 * stop + 1
    start, stop = stop - len(own.lstrip()), start + len(own.rstrip())
    return 2 * start + 1, 2 * stop


def _in_parts(places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return units, starts and stops, where adjacent tokens of the same place have equal parts of it."""
    is_new = np.ones(len(places), dtype=bool)
    is_new[1:] = (np.diff(places, axis=0) != 0).any(1)
    run = is_new.cumsum() - 1
    first, count = np.flatnonzero(is_new), np.bincount(run)
    part, parts = np.arange(len(places)) - first[run], count[run]
    units, starts, stops = places.T
    width = stops - starts
    return units, starts + width * part / parts, starts + width * (part + 1) / parts
