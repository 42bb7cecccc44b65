"""Cutting of texts at the same character for several tokenizers, so that all models read the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from distil_nlp.data.tokenization import tokenise, trim_long_pairs

Texts = Mapping[str, Sequence[str]]
"""One column of texts, or two columns of pairs, by their names."""
Ends = tuple[int, ...]
"""For each column, the number of characters that are kept of its text."""


def cut_alike(
    texts: Texts, tokenizers: Sequence[PreTrainedTokenizerBase], max_length: int
) -> tuple[dict[str, list[str]], list[bool]]:
    """Return the texts that every tokenizer reads in full within `max_length` tokens, and which rows were cut for it.

    A row is cut where the first of the tokenizers would truncate it. What is left may make more pieces of a word than
    the whole word did: it is then cut again, so that no tokenizer truncates what the others read.

    Args:
        texts: of each row.
        tokenizers: fast ones, which truncate on the right.
        max_length: most tokens of a row, special ones included.
    """
    kept = {name: list(column) for name, column in texts.items()}
    for tokenizer in tokenizers if len(kept) == 2 else ():
        first, second = kept.values()
        kept = dict(zip(kept, trim_long_pairs(tokenizer, first, second, max_length), strict=True))
    cut = [False] * len(next(iter(kept.values())))
    pending = list(range(len(cut)))
    while pending:
        rows = {name: [column[i] for i in pending] for name, column in kept.items()}
        by_tokenizer = [_kept_ends(tokenizer, rows, max_length) for tokenizer in tokenizers]
        ends = {i: _first_end([one[place] for one in by_tokenizer]) for place, i in enumerate(pending)}
        pending = [i for i in pending if ends[i] is not None]
        for i in pending:
            cut[i] = True
            _shorten(kept, i, ends[i] or ())
    return kept, cut


def cut_words_alike(
    sentences: Sequence[Sequence[str]], tokenizers: Sequence[PreTrainedTokenizerBase], max_length: int
) -> tuple[list[list[str]], list[bool]]:
    """Return lists of words that every tokenizer reads in full, as `cut_alike` does with texts; the last may be cut."""
    kept = [list(words) for words in sentences]
    cut, pending = [False] * len(kept), list(range(len(kept)))
    while pending:
        rows = [kept[i] for i in pending]
        by_tokenizer = [_kept_words(tokenizer, rows, max_length) for tokenizer in tokenizers]
        found = {i: [one[place] for one in by_tokenizer if one[place] is not None] for place, i in enumerate(pending)}
        pending = [i for i in pending if found[i]]
        for i in pending:
            number, stop = min(end for end in found[i] if end is not None)
            shorter = [*kept[i][:number], kept[i][number][:stop]]
            if shorter == kept[i]:  # a token may be a part of a character
                shorter[-1] = shorter[-1][:-1]
            kept[i], cut[i] = shorter if shorter[-1] else shorter[:-1], True
    return kept, cut


def _kept_words(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], max_length: int
) -> list[tuple[int, int] | None]:
    """Return (number, kept characters) of the last word that a tokenizer reads; None where it reads all."""
    whole = tokenise(tokenizer, {"words": sentences}, is_split_into_words=True)
    options = {"truncation": True, "max_length": max_length, "is_split_into_words": True}
    encoded = tokenise(tokenizer, {"words": sentences}, **options)
    ends: list[tuple[int, int] | None] = []
    for i, ids in enumerate(whole["input_ids"]):
        offsets = encoded.encodings[i].offsets  # type: ignore[index]  # of a fast tokenizer
        read = [(word, stop) for word, (_, stop) in zip(encoded.word_ids(i), offsets, strict=True) if word is not None]
        ends.append(max(read, default=(0, 0)) if len(ids) > max_length else None)
    return ends


def _first_end(ends: Sequence[Ends | None]) -> Ends | None:
    """Return where the first of the tokenizers truncates each text; None where none of them does."""
    found = [one for one in ends if one is not None]
    return tuple(map(min, zip(*found, strict=True))) if found else None


def _shorten(texts: dict[str, list[str]], row: int, ends: Ends) -> None:
    """Cut a row's texts, the longest one by a character at least: a token may be a part of a character."""
    columns = list(texts.values())
    if all(len(column[row]) <= end for column, end in zip(columns, ends, strict=True)):
        longest = max(columns, key=lambda column: len(column[row]))
        longest[row] = longest[row][:-1]
    for column, end in zip(columns, ends, strict=True):
        column[row] = column[row][:end]


def _kept_ends(tokenizer: PreTrainedTokenizerBase, texts: Texts, max_length: int) -> list[Ends | None]:
    """Return where a tokenizer truncates the texts of each row; None for a row that fits."""
    lengths = [len(ids) for ids in tokenise(tokenizer, texts, truncation=False)["input_ids"]]
    long = [i for i, length in enumerate(lengths) if length > max_length]
    ends: list[Ends | None] = [None] * len(lengths)
    if not long:
        return ends
    rows = {name: [column[i] for i in long] for name, column in texts.items()}
    options = {"truncation": True, "max_length": max_length, "return_offsets_mapping": True}
    encoded = tokenise(tokenizer, rows, **options)
    for place, i in enumerate(long):
        sides, offsets = encoded.sequence_ids(place), encoded["offset_mapping"][place]
        stops = [[stop for side, (_, stop) in zip(sides, offsets, strict=True) if side == n] for n in range(len(texts))]
        ends[i] = tuple(max(one, default=0) for one in stops)
    return ends
