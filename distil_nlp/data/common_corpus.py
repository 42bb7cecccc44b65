"""Packing of text into blocks that two tokenizers read in full, cut where both have a token's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import Features, List, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import encoding_name
from distil_nlp.data.token_alignment import PARTNERS, STARTS, STOPS, Spans, overlaps
from distil_nlp.data.tokenization import tokenise

_OTHER = encoding_name(0)
_NUMBERS = List(Value("int32"))
BLOCK_COLUMNS = Features(
    {name: _NUMBERS for name in ("input_ids", "word_ids", f"{_OTHER}input_ids", f"{_OTHER}word_ids")}
    | {name: _NUMBERS for name in (STARTS, STOPS, PARTNERS)}
    | {name: Value("int32") for name in ("length", "aligned", "words", "matched")}
    | {"cut": Value("bool")}
)
"""Columns of a block: `word_ids` are numbers of words that both tokenizers tell from those around."""


@dataclass
class _Tokens:
    """Tokens of one of the tokenizers: ids, places (document, start, stop), and numbers of their words."""

    ids: np.ndarray
    places: np.ndarray
    words: np.ndarray

    def __getitem__(self, part: slice) -> _Tokens:
        return _Tokens(self.ids[part], self.places[part], self.words[part])


def pack_alike(
    batch: dict[str, list[str | None]],
    tokenizers: Sequence[PreTrainedTokenizerBase],
    vocabulary: CommonVocabulary,
    column: str,
    max_length: int,
) -> dict[str, list[Any]]:
    """Pack the documents of a batch into blocks of at most `max_length` tokens of either tokenizer.

    A block ends where the next characters that end in a token of both have no room in one of them; documents are joined
    by each one's separator. What does not fill a last block is dropped, as by `corpus.pack`, whose blocks these are
    where both are one tokenizer. Characters without such an end that do not fit a block are left out.

    Args:
        tokenizers: the student's and the teacher's, fast ones.
        vocabulary: the words that these have in common.
    """
    texts = [text for text in batch[column] if text and not str(text).isspace()]
    columns: dict[str, list[Any]] = {name: [] for name in BLOCK_COLUMNS}
    if not texts:
        return columns
    encoded = [tokenise(one, {column: texts}, add_special_tokens=False) for one in tokenizers]
    separators = [_Tokens(np.array([one.sep_token_id]), np.empty((1, 3)), np.array([-1])) for one in tokenizers]
    room, blocks, counts = max_length - 2, [], [0, 0]
    parts: list[list[_Tokens]] = [[], []]
    for number in range(len(texts)):
        for unit in [*_units(encoded, number, texts), _separators(separators, number)]:
            sizes = [len(tokens.ids) for tokens in unit]
            if max(sizes) > room:
                continue
            if any(count + size > room for count, size in zip(counts, sizes, strict=True)):
                blocks.append(parts)
                parts, counts = [[], []], [0, 0]
            for part, tokens in zip(parts, unit, strict=True):
                part.append(tokens)
            counts = [count + size for count, size in zip(counts, sizes, strict=True)]
    if room in counts:
        blocks.append(parts)
    for block in blocks:
        row = _row([_framed(part, one) for part, one in zip(block, tokenizers, strict=True)], tokenizers[0], vocabulary)
        for name, value in row.items():
            columns[name].append(value)
    return columns


def _separators(separators: Sequence[_Tokens], number: int) -> list[_Tokens]:
    """Return the tokens behind a document."""
    place = np.array([[2 * number + 1, 0, 1]], dtype=float)
    return [_Tokens(one.ids, place, one.words) for one in separators]


def _units(encoded: Sequence[BatchEncoding], number: int, texts: Sequence[str]) -> Iterator[list[_Tokens]]:
    """Yield the tokens of a document in the smallest parts that begin and end at the same character in both."""
    spans = [Spans.of(one, number, [texts]) for one in encoded]
    cuts = common_ends(*spans)
    words = [np.array([-1 if word is None else word for word in one.word_ids(number)]) for one in encoded]
    ids = [np.array(one["input_ids"][number], dtype=np.int64) for one in encoded]
    places = [np.stack([np.full(len(one.starts), 2.0 * number), one.starts, one.stops], 1) for one in spans]
    word = 0
    for before, after in pairwise(cuts):
        if before[0] and all(own[i] != own[i - 1] for own, i in zip(words, before, strict=True) if 0 < i < len(own)):
            word += 1
        parts = [slice(i, j) for i, j in zip(before, after, strict=True)]
        yield [
            _Tokens(ids[k][part], places[k][part], np.full(part.stop - part.start, word))
            for k, part in enumerate(parts)
        ]


def common_ends(own: Spans, other: Spans) -> list[tuple[int, int]]:
    """Return the places between tokens at which both may be cut, as numbers of the tokens behind; both ends included.

    A place is none where a token of either covers characters of both sides.
    """
    size, others = len(own.starts), len(other.starts)
    if not size or not others:
        return [(0, 0), (size, others)]
    begins = own.starts[1:]
    is_end = np.maximum.accumulate(own.stops)[:-1] <= np.minimum.accumulate(own.starts[::-1])[::-1][1:]
    lowest = np.minimum.accumulate(other.starts[::-1])[::-1]
    behind = np.searchsorted(lowest, begins, side="left")
    highest = np.concatenate([[0.0], np.maximum.accumulate(other.stops)])
    is_end &= highest[behind] <= begins
    inner = [(int(i) + 1, int(behind[i])) for i in np.flatnonzero(is_end)]
    return [(0, 0), *inner, (size, others)]


def _framed(parts: Sequence[_Tokens], tokenizer: PreTrainedTokenizerBase) -> _Tokens:
    """Return a block's tokens between [CLS] and [SEP]; words have numbers of their own in each document."""
    ends = [
        _Tokens(np.array([number]), np.array([[place, 0.0, 1.0]]), np.array([-1]))
        for number, place in ((tokenizer.cls_token_id, -1.0), (tokenizer.sep_token_id, -2.0))
    ]
    whole = [ends[0], *parts, ends[1]]
    return _Tokens(*(np.concatenate([getattr(one, name) for one in whole]) for name in ("ids", "places", "words")))


def _row(block: Sequence[_Tokens], tokenizer: PreTrainedTokenizerBase, vocabulary: CommonVocabulary) -> dict[str, Any]:
    """Return the columns of a block."""
    own, other = block
    starts, stops = overlaps(*(Spans(*one.places.T) for one in block))
    partners = _equals(own.ids, other.ids, starts, stops, vocabulary)
    maskable = ~np.isin(own.ids, tokenizer.all_special_ids)
    return {
        "input_ids": own.ids,
        "word_ids": own.words,
        f"{_OTHER}input_ids": other.ids,
        f"{_OTHER}word_ids": other.words,
        STARTS: starts,
        STOPS: stops,
        PARTNERS: partners,
        "length": len(own.ids),
        "aligned": int((stops > 0).sum()),
        "words": int(maskable.sum()),
        "matched": int((partners[maskable] >= 0).sum()),
        "cut": False,
    }


def _equals(
    own: np.ndarray, other: np.ndarray, starts: np.ndarray, stops: np.ndarray, vocabulary: CommonVocabulary
) -> np.ndarray:
    """Return of each token the one token of the other block that is the same word; −1 where there is none."""
    covering = np.zeros(len(other) + 1, dtype=np.int64)
    np.add.at(covering, starts, 1)
    np.add.at(covering, stops, -1)
    is_one = (stops - starts == 1) & (covering.cumsum()[starts] == 1)
    return np.where(is_one & (vocabulary.student_of[other[starts]] == own), starts, -1)
