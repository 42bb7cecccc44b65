"""Span masking: runs of adjacent words are masked together (SpanBERT, Joshi et al. 2020, arXiv:1907.10529)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distil_nlp.data.masking import MaskingCollator, lacks_many

_P, LONGEST_SPAN = 0.2, 10
"""Of the geometric distribution of the lengths of spans, and the most words of a span."""
SPAN_LENGTHS = np.arange(1, LONGEST_SPAN + 1)
"""Lengths of spans, in words."""
LENGTH_PROBABILITIES = _P * (1 - _P) ** (SPAN_LENGTHS - 1) / (1 - (1 - _P) ** LONGEST_SPAN)
"""Probability of each length. Longer ones do not occur: the mean is 3.8 words, as in the paper."""


@dataclass
class SpanMaskingCollator(MaskingCollator):
    """A `MaskingCollator` that chooses spans of adjacent words until the number of tokens is reached.

    A span begins at any word that is not chosen yet, with equal probability, and has a length of `SPAN_LENGTHS` with
    `LENGTH_PROBABILITIES`. It passes over words of earlier spans, and ends early at a special token, such as the
    separator of two documents, and at a word that would exceed the number; so the last span of a row is often shorter.
    The tokens of a span become mask tokens, random tokens, or stay, all alike. Words that are longer than the number
    are chosen token by token, as in `MaskingCollator`.

    Reference: section 3.1 of the paper. Its code cuts the last word where the number is reached; here words stay whole.
    """

    whole_words: bool = True
    key: ClassVar[str] = "data.masking.spans"

    def _draw(
        self, row: np.ndarray, units: list[np.ndarray], number: int, generator: np.random.Generator
    ) -> Sequence[np.ndarray]:
        """Return the positions of at most so many tokens, by span."""
        starts = generator.permutation(len(units))
        lengths = generator.choice(SPAN_LENGTHS, size=len(units), p=LENGTH_PROBABILITIES)
        is_free, spans, remaining = np.ones(len(units), dtype=bool), [], number
        for start, length in zip(starts, lengths, strict=True):
            span = _span_at(start, length, units, is_free, remaining) if is_free[start] else []
            if span:
                is_free[span] = False
                spans.append(np.concatenate([units[place] for place in span]))
                remaining -= len(spans[-1])
            if remaining == 0:
                return spans
        if lacks_many(remaining, number):
            spans += [units[place][:remaining] for place in starts if is_free[place]][:1]
        return spans


def _span_at(start: int, length: int, units: list[np.ndarray], is_free: np.ndarray, most: int) -> list[int]:
    """Return the numbers of the free words in a span, which have at most so many tokens."""
    span: list[int] = []
    for place in range(start, min(start + length, len(units))):
        if place > start and units[place][0] != units[place - 1][-1] + 1:
            break
        if not is_free[place]:
            continue
        most -= len(units[place])
        if most < 0:
            break
        span.append(place)
    return span
