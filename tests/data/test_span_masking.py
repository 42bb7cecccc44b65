"""Masking of spans of words."""

import numpy as np
import pytest
import torch
from scipy import stats

from distil_nlp.data.row_sets import EPOCH
from distil_nlp.data.span_masking import LENGTH_PROBABILITIES, SPAN_LENGTHS, SpanMaskingCollator
from distil_nlp.errors import UserError
from tests.helpers import tiny

TOKENIZER = tiny.tokenizer()
CLS, SEP, MASK = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.mask_token_id


def rows_of(words: list[int], count: int, seed: int = 0) -> list[dict]:
    """Rows of random tokens in words with these numbers; −1 is a separator."""
    ids = np.random.default_rng(seed).integers(len(TOKENIZER.all_special_ids), len(TOKENIZER), (count, len(words)))
    ids = np.where(np.array(words) < 0, SEP, ids).tolist()
    return [{"input_ids": [CLS, *row, SEP], "word_ids": [-1, *words, -1]} for row in ids]


def chosen_of(rows: list[dict], **options) -> np.ndarray:
    return (SpanMaskingCollator(TOKENIZER, **options)(rows)["labels"] != -100).numpy()


def runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Return (begin, end) of each run of chosen tokens."""
    steps = np.diff(np.concatenate([[0], chosen.astype(int), [0]]))
    return list(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))


def test_lengths_are_geometric_and_clipped():
    """Prevents other lengths than the paper's: p = 0.2, at most 10 words, 3.8 in the mean."""
    assert pytest.approx(3.8, abs=0.01) == (SPAN_LENGTHS * LENGTH_PROBABILITIES).sum()
    assert LENGTH_PROBABILITIES[1:] / LENGTH_PROBABILITIES[:-1] == pytest.approx(0.8)
    collator = SpanMaskingCollator(TOKENIZER)
    units = list(np.arange(30_000)[:, None])
    found = []
    for seed in range(20):
        spans = collator._draw(np.zeros(30_000), units, 300, np.random.default_rng(seed))
        found += [len(span) for span in spans[:-1]]  # the last one ends where the number is reached
    counts = np.bincount(found, minlength=11)[1:]
    assert len(found) > 1000
    assert counts.sum() == len(found), "longer than 10"
    assert stats.chisquare(counts, LENGTH_PROBABILITIES * len(found)).pvalue > 1e-3


@pytest.mark.parametrize(("tokens", "number"), [(1, 1), (16, 2), (100, 15), (510, 77)])
def test_the_share_is_exact_where_words_are_single_tokens(tokens, number):
    """Prevents a share that grows by a span's length, and counts that change the shapes of every step."""
    assert chosen_of(rows_of([*range(tokens)], 20)).sum(1).tolist() == [number] * 20


def test_the_share_is_near_and_words_are_whole():
    """Prevents halves of words, which give their other half away, and a share below 15 % for that."""
    words = [i for i in range(60) for _ in range(1 + i % 3)]
    chosen = chosen_of(rows_of(words, 200))
    assert 17 < chosen.sum(1).mean() <= chosen.sum(1).max() <= 18
    numbers = np.array([-1, *words, -1])
    parts = np.stack([chosen[:, numbers == word].mean(1) for word in range(60)])
    assert set(parts.flatten().tolist()) == {0.0, 1.0}


def test_tokens_lie_together():
    """Prevents single tokens, which spans are to replace: 15 % of them would be in some 13 runs a row."""
    chosen = chosen_of(rows_of([*range(100)], 200))
    assert np.mean([len(runs(row)) for row in chosen]) < 6


def test_every_word_begins_a_span_as_often():
    """Prevents rows whose beginning is never masked: only the first words are in fewer spans."""
    chosen = chosen_of(rows_of([*range(60)], 3000)).sum(0)[1:-1]
    assert stats.chisquare(chosen[12:]).pvalue > 1e-4
    assert chosen[0] < 0.6 * chosen[12:].mean()


def test_a_span_ends_with_its_document():
    """Prevents a span over a separator, and separators as targets."""
    words = [0, 1, 2, -1, 3, 4, 5, -1, *range(6, 40)]
    collator = SpanMaskingCollator(TOKENIZER, probability=0.5)
    for row in rows_of(words, 50):
        positions = np.flatnonzero(np.array(row["word_ids"]) >= 0)
        ids, draw = np.array(row["input_ids"]), np.random.default_rng(row["input_ids"])
        for span in collator._draw(ids, list(positions[:, None]), 20, draw):
            assert not span.min() < 4 < span.max()
            assert not span.min() < 8 < span.max()
    assert not chosen_of(rows_of(words, 50), probability=0.5)[:, [0, 4, 8, -1]].any()


def test_a_span_is_masked_replaced_or_kept_as_a_whole():
    """Prevents a span whose kept tokens tell the others; the fractions are BERT's 80, 10 and 10 %."""
    fates = []
    for row in rows_of([*range(100)], 1500):
        batch = SpanMaskingCollator(TOKENIZER, probability=0.01)([row])  # a single token
        (at,) = np.flatnonzero(batch["labels"][0] != -100)
        fates.append(batch["input_ids"][0, at].item() == MASK)
    assert stats.binomtest(sum(fates), len(fates), 0.8).pvalue > 1e-3
    batch = SpanMaskingCollator(TOKENIZER, probability=0.04)(rows_of([*range(100)], 1500))
    within = [
        set((batch["input_ids"][i, begin:end] == MASK).tolist())
        for i, row in enumerate((batch["labels"] != -100).numpy())
        for begin, end in runs(row)
        if len(runs(row)) == 1  # of several some may have met
    ]
    mixed = sum(len(found) == 2 for found in within)
    assert len(within) > 100
    assert mixed < 0.1 * len(within), "only spans that met are mixed"


def test_spans_are_a_function_of_seed_epoch_and_row():
    """Prevents masks that change with a resume, with workers or with the other rows of a batch."""
    row, *others = rows_of([*range(40)], 3)

    def masked(*rows: dict, epoch: int = 0, seed: int = 0) -> list[int]:
        np.random.seed()
        torch.seed()
        return SpanMaskingCollator(TOKENIZER, seed=seed)([*rows, {**row, EPOCH: epoch}])["input_ids"][-1].tolist()

    assert masked() == masked(*others)
    assert masked() != masked(epoch=1)
    assert masked() != masked(seed=1)


def test_long_words_and_rows_without_words_to_mask():
    """Prevents a row without a target where its only word is longer than the number, and a failure of an empty one."""
    assert chosen_of(rows_of([0] * 40, 5)).sum(1).tolist() == [6] * 5
    assert not chosen_of([{"input_ids": [CLS, SEP], "word_ids": [-1, -1]}]).any()


def test_rows_without_words_are_refused():
    """Prevents spans of tokens where a loader of one's own gives no words."""
    with pytest.raises(UserError, match=r"data\.masking\.spans: expected rows with word_ids"):
        SpanMaskingCollator(TOKENIZER)([{"input_ids": [CLS, 9, SEP]}])
