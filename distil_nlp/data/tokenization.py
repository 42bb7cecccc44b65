"""Tokenisation of texts, with errors for texts that cannot be tokenised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.errors import UserError, quoted


def tokenise(tokenizer: PreTrainedTokenizerBase, columns: Mapping[str, Sequence[Any]], **options: Any) -> BatchEncoding:
    """Return the tokens of a column of texts, which may be lists of words, or of two columns as pairs.

    Args:
        columns: the texts by the names of their columns.
        options: of the tokenizer, such as `is_split_into_words`.

    Raises:
        UserError: if a value is not a text, or the tokenizer fails on one.
    """
    for name, texts in columns.items():
        _check_texts(name, list(chain.from_iterable(texts)) if options.get("is_split_into_words") else texts)
    try:
        return tokenizer(*columns.values(), verbose=False, **options)
    except Exception as error:  # tokenizers raises Exception itself
        raise UserError(
            None,
            "a tokenizer that can read all texts",
            f"{type(tokenizer).__name__}, which raised: {' '.join(str(error).split())[:200]}",
            why="a text would have no tokens",
            fix="check unk_token and the vocabulary in the teacher's tokenizer.json",
        ) from error


def word_ids(encoded: Any, row: int, length: int) -> list[int]:
    """Return the number of each token's word; without a fast tokenizer each token is its own word."""
    if not encoded.is_fast:
        return list(range(length))
    return [-1 if word is None else word for word in encoded.word_ids(row)]


def _check_texts(name: str, texts: Sequence[Any]) -> None:
    invalid = next((text for text in texts if not isinstance(text, str)), None)
    if invalid is not None:
        raise UserError(
            "data.text_columns",
            f"text in {quoted(name)}",
            f"{type(invalid).__name__} ({str(invalid)[:40]})",
            why="it cannot be tokenised",
            fix="name a column of text",
        )
    if sum(text.count("\0") for text in texts) > sum(map(len, texts)) // 4:
        example = next(text for text in texts if "\0" in text)
        raise UserError(
            "data",
            f"text in UTF-8 in {quoted(name)}",
            f"more than a quarter of NULs, as in {example[:20]!r}",
            why="it is UTF-16 or not text, and would be decoded wrongly",
            fix="convert the file to UTF-8",
        )


def trim_long_pairs(
    tokenizer: PreTrainedTokenizerBase, first: Sequence[str], second: Sequence[str], max_length: int
) -> tuple[list[str], list[str]]:
    """Return pairs of texts without most of the text that truncation to `max_length` removes.

    The longer text remains the longer one. `tokenizers` combines every truncated part of one text with every truncated
    part of the other, only to discard them: this takes hours for two long texts.
    """
    cut = list(first), list(second)
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        return cut
    are_texts = all(isinstance(text, str) for texts in cut for text in texts)  # tokenise() raises for others
    long = [i for i, pair in enumerate(zip(*cut, strict=True)) if are_texts and max(map(len, pair)) > 8 * max_length]
    if not long:
        return cut
    options = {"add_special_tokens": False, "return_offsets_mapping": True}
    encodings = [tokenise(tokenizer, {"text": [texts[i] for i in long]}, **options) for texts in cut]
    for row, i in enumerate(long):
        counts = [len(encoding["input_ids"][row]) for encoding in encodings]
        longer = 0 if counts[0] > counts[1] else 1  # of an odd number the second one gets more, unless it is shorter
        for side, encoding in enumerate(encodings):
            kept, offsets = (4 if side == longer else 2) * max_length, encoding["offset_mapping"][row]
            cut[side][i] = cut[side][i][: _end(encoding.word_ids(row), offsets, kept, max_length)]
    return cut


def _end(words: Sequence[int | None], offsets: Sequence[tuple[int, int]], kept: int, more: int) -> int | None:
    """Return the end of a text's first `kept` tokens, completed to a whole word if that takes at most `more` tokens."""
    if len(words) <= kept + more:
        return None
    ends = (place for place in range(kept, kept + more) if words[place] != words[place - 1])
    return offsets[next(ends, kept) - 1][1]
