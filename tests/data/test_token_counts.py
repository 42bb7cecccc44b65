"""Counts of tokens in a corpus, and the tokens that cover a part of it."""

import numpy as np
import pytest
from datasets import Dataset

from distil_nlp.data.token_counts import by_need, count_tokens, divided, measured, texts_of
from tests.helpers import tiny


def test_tokens_are_counted_without_special_ones():
    """Prevents [CLS] as the commonest word."""
    tokenizer = tiny.tokenizer()
    counts = count_tokens(tokenizer, ["the cat the", "cat xyz"])
    known = {token: counts[number] for token, number in tokenizer.get_vocab().items() if counts[number]}
    assert known == {"the": 2, "cat": 2, "[UNK]": 1}


def test_a_fraction_of_the_text_is_covered_by_the_commonest_tokens():
    """Prevents a token too few or too many at the border, and tokens that never occur."""
    counts = np.array([0, 5, 1, 3, 1])
    assert by_need(counts) == [1, 3, 2, 4]
    assert by_need(counts, 0.5) == [1]
    assert by_need(counts, 0.51) == [1, 3]
    assert by_need(counts, 0.8) == [1, 3]
    assert by_need(counts, 0.9) == [1, 3, 2]


def test_texts_are_of_all_columns_and_some_are_measured_on():
    """Prevents lists of words, blank and missing texts from being counted as they are written."""
    rows = Dataset.from_dict({"a": ["x", None, " "], "b": [["the", "cat"], [], ["y"]], "c": [1, 2, 3]})
    assert texts_of(rows, ("a", "b")) == ["x", "the cat", "y"]
    many = [f"text {number}" for number in range(2000)]
    counted, held_out = divided(many)
    assert sorted(counted + held_out) == sorted(many)
    assert 50 < len(held_out) < 150


def test_unknown_tokens_and_tokens_of_a_word_are_measured():
    """Prevents a rate that counts special tokens."""
    assert measured(tiny.tokenizer(), ["the cat xyz", "the"]) == pytest.approx({"unknown": 0.25, "tokens_per_word": 1})
