"""Texts → token ids, and what a user is told where that cannot be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.errors import UserError


def tokenise(tokenizer: PreTrainedTokenizerBase, columns: Mapping[str, Sequence[str]], **options: Any) -> BatchEncoding:
    """Tokens of one column of texts, or of two that are pairs; columns by name.

    Raises:
        UserError: if a value is no text, or the tokenizer cannot read one.
    """
    for name, texts in columns.items():
        _check_texts(name, texts)
    try:
        return tokenizer(*columns.values(), verbose=False, **options)
    except Exception as error:  # tokenizers raises Exception itself
        raise UserError(
            None,
            "a tokenizer that can read all texts",
            f"{type(tokenizer).__name__}, which says: {' '.join(str(error).split())[:200]}",
            why="a text would have no tokens",
            fix="check unk_token and the vocabulary in the teacher's tokenizer.json",
        ) from error


def word_ids(encoded: Any, row: int, length: int) -> list[int]:
    """The word of each token, from the fast tokenizer; each token its own word where there is none."""
    if not encoded.is_fast:
        return list(range(length))
    return [-1 if word is None else word for word in encoded.word_ids(row)]


def _check_texts(name: str, texts: Sequence[Any]) -> None:
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise UserError(
            "data.text_columns",
            f"text in {name!r}",
            f"{type(wrong).__name__} ({str(wrong)[:40]})",
            why="it cannot be tokenised",
            fix="name a column of text",
        )
    if sum(text.count("\0") for text in texts) > sum(map(len, texts)) // 4:
        example = next(text for text in texts if "\0" in text)
        raise UserError(
            "data",
            f"text in UTF-8 in {name!r}",
            f"more than a quarter of NULs, as in {example[:20]!r}",
            why="it is UTF-16 or no text at all, and would be read wrongly",
            fix="convert the file to UTF-8",
        )


def trim_long_pairs(
    tokenizer: PreTrainedTokenizerBase, first: Sequence[str], second: Sequence[str], max_length: int
) -> tuple[list[str], list[str]]:
    """Pairs of texts without most of what truncation to `max_length` cuts off; the longer text stays the longer one.

    `tokenizers` puts every cut-off part of one text together with every one of the other, to throw them all away: hours
    for two long texts.
    """
    cut = list(first), list(second)
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        return cut
    are_texts = all(isinstance(text, str) for texts in cut for text in texts)  # others are refused where they are read
    long = [i for i, pair in enumerate(zip(*cut, strict=True)) if are_texts and max(map(len, pair)) > 8 * max_length]
    if not long:
        return cut
    options = {"add_special_tokens": False, "return_offsets_mapping": True}
    seen = [tokenise(tokenizer, {"text": [texts[i] for i in long]}, **options) for texts in cut]
    for row, i in enumerate(long):
        counts = [len(one["input_ids"][row]) for one in seen]
        longer = 0 if counts[0] > counts[1] else 1  # of an odd number the second one gets more, unless it is shorter
        for side, one in enumerate(seen):
            kept = (4 if side == longer else 2) * max_length
            cut[side][i] = cut[side][i][: _end(one.word_ids(row), one["offset_mapping"][row], kept, max_length)]
    return cut


def _end(words: Sequence[int | None], offsets: Sequence[tuple[int, int]], kept: int, more: int) -> int | None:
    """Where a text's first `kept` tokens end, and the word they end in, if that takes no more than `more` tokens."""
    if len(words) <= kept + more:
        return None
    ends = (place for place in range(kept, kept + more) if words[place] != words[place - 1])
    return offsets[next(ends, kept) - 1][1]
