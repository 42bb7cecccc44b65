"""Dynamic masking as a pure function of (seed, epoch, row), so that a resume or another worker draws the same masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.row_sets import EPOCH, row_generator
from distil_nlp.errors import UserError


@dataclass
class MaskingCollator:
    """Collates rows of `input_ids` (and `word_ids`) into a masked batch with `labels` (−100 for unmasked tokens).

    In each row ⌊probability · tokens + ½⌋ tokens are chosen, at least one, where `tokens` excludes the row's first and
    last; none at a probability of 0. The number depends on the row's length only, so that packed blocks have constant
    shapes however many separators they contain. Of the chosen tokens, 80 % become the mask token, 10 % a random token
    and 10 % are kept (BERT, arXiv:1810.04805, appendix A.1). Special tokens are never chosen.

    Args:
        whole_words: choose words instead of tokens until the number is reached; a word that would exceed it is
            skipped. A word that is longer than the number (text without spaces may be a single one) is chosen token by
            token; and a word is cut where all others are too long for what is lacking, if that is a quarter or more.
        log_weights: (vocabulary,), log of each token's sampling weight; DistilBERT uses −0.7 · log count, so that
            rare tokens are masked more often. The log weight of a word is the mean over its tokens.

    Raises:
        UserError: if the tokenizer has no mask token.

    Attributes:
        key: recipe key by which words are chosen.
    """

    tokenizer: PreTrainedTokenizerBase
    probability: float = 0.15
    whole_words: bool = False
    log_weights: np.ndarray | None = None
    seed: int = 0
    key: ClassVar[str] = "data.masking.whole_words"

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None:
            raise UserError(
                None,
                "a tokenizer with a mask token",
                f"{type(self.tokenizer).__name__} without one",
                why="masked language modelling needs it",
                fix="use a masked language model as the teacher",
            )
        self._special = np.array(sorted(self.tokenizer.all_special_ids))
        self._ordinary = np.setdiff1d(list(self.tokenizer.get_vocab().values()), self._special)
        self.wants_epoch = self.probability > 0

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [np.asarray(feature["input_ids"], dtype=np.int64) for feature in features]
        length = max(len(row) for row in rows)
        ids = np.full((len(rows), length), self.tokenizer.pad_token_id or 0)
        labels, attended = np.full_like(ids, -100), np.zeros_like(ids)
        for i, (row, feature) in enumerate(zip(rows, features, strict=True)):
            words = self._words(feature) if self.whole_words else None
            ids[i, : len(row)], labels[i, : len(row)] = self._mask(row, words, feature.get(EPOCH, 0))
            attended[i, : len(row)] = 1
        batch = {"input_ids": ids, "attention_mask": attended, "labels": labels}
        if "token_type_ids" in self.tokenizer.model_input_names:
            batch["token_type_ids"] = np.zeros_like(ids)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _words(self, feature: dict[str, Any]) -> Sequence[int]:
        if "word_ids" not in feature:
            raise UserError(
                self.key,
                "rows with word_ids",
                ", ".join(feature),
                why="single tokens would be masked instead",
                fix="load the text with load_corpus, or mask tokens",
            )
        return feature["word_ids"]

    def _mask(self, row: np.ndarray, words: Sequence[int] | None, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        generator = row_generator(self.seed, epoch, row, salt=0)
        groups = self._choose(row, words, generator)
        chosen = np.concatenate([np.empty(0, dtype=np.int64), *groups])
        labels = np.full_like(row, -100)
        labels[chosen] = row[chosen]
        masked, fate = row.copy(), np.repeat(generator.random(len(groups)), [len(group) for group in groups])
        masked[chosen[fate < 0.8]] = self.tokenizer.mask_token_id
        random = chosen[(fate >= 0.8) & (fate < 0.9)]
        masked[random] = generator.choice(self._ordinary, size=len(random))
        return masked, labels

    def _choose(
        self, row: np.ndarray, words: Sequence[int] | None, generator: np.random.Generator
    ) -> Sequence[np.ndarray]:
        """Return the positions of the chosen tokens, in groups that are masked, replaced or kept together."""
        maskable = np.flatnonzero(~np.isin(row, self._special))
        if len(maskable) == 0 or not self.probability:
            return []
        inner = len(row) - np.isin(row[[0, -1]], self._special).sum()
        number = min(max(1, int(self.probability * inner + 0.5)), len(maskable))
        units = split_long_words(word_positions(maskable, words), number)
        return self._draw(row, units, number, generator)

    def _draw(
        self, row: np.ndarray, units: list[np.ndarray], number: int, generator: np.random.Generator
    ) -> Sequence[np.ndarray]:
        """Return the positions of at most so many tokens of the units, sorted, each token by itself.

        The highest values of Gumbel noise + log weight are a draw without replacement in proportion to the weights.
        """
        scores = generator.gumbel(size=len(units))
        if self.log_weights is not None:
            scores += np.array([self.log_weights[row[unit]].mean() for unit in units])
        chosen = np.sort(np.concatenate(_fill([units[i] for i in np.argsort(-scores)], number)))
        return list(chosen[:, None])


def _fill(units: Sequence[np.ndarray], number: int) -> list[np.ndarray]:
    """Return the first units that together have at most so many tokens, and parts of others if many are lacking."""
    chosen, skipped, remaining = [], [], number
    for unit in units:
        if len(unit) <= remaining:
            chosen.append(unit)
            remaining -= len(unit)
        else:
            skipped.append(unit)
        if remaining <= 0:
            break
    if lacks_many(remaining, number):
        chosen += [unit[:remaining] for unit in skipped[:1]]  # each is longer than what is lacking
    return chosen


def lacks_many(remaining: int, number: int) -> bool:
    """Return whether so many tokens are lacking of a number that a word is cut to have them."""
    return remaining > max(number // 4, 2)


def split_long_words(words: list[np.ndarray], number: int) -> list[np.ndarray]:
    """Return words, and the single tokens of those that are longer than a number."""
    if all(len(word) <= number for word in words):
        return words
    return [unit for word in words for unit in ([word] if len(word) <= number else np.split(word, len(word)))]


def word_positions(maskable: np.ndarray, words: Sequence[int] | None) -> list[np.ndarray]:
    """Return the positions that are masked together: single tokens, or adjacent tokens with the same word number."""
    if words is None:
        return [maskable[i : i + 1] for i in range(len(maskable))]
    numbers = np.asarray(words)[maskable]
    breaks = np.flatnonzero((np.diff(numbers) != 0) | (np.diff(maskable) != 1)) + 1
    return np.split(maskable, breaks)


def token_frequencies(rows: Iterable[dict[str, Any]], vocabulary: int, limit: int = 20_000) -> np.ndarray:
    """Return each token's count in (at most `limit`) rows, plus one, (vocabulary,)."""
    counts: Counter[int] = Counter()
    for number, row in enumerate(rows):
        if number == limit:
            break
        counts.update(row["input_ids"])
    frequencies = np.ones(vocabulary)
    for token, count in counts.items():
        frequencies[token] += count
    return frequencies
