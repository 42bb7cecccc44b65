"""Replaced-token detection: its formula, and draws from a teacher's distribution."""

import math

import numpy as np
import pytest
import torch

from distil_nlp.data.row_sets import Chunks
from distil_nlp.losses.replaced_tokens import ReplacedTokens, replaced_tokens
from distil_nlp.signals.types import LazyLogits
from distil_nlp.training.sampled_text import draw_words, sampled_words
from tests.helpers.relations import assert_same, normal


def test_it_is_the_papers_formula():
    """Prevents a head that is told the opposite: number by number, with the paper's D, which is of the original."""
    is_replaced = torch.tensor([True, False, False, True, False])

    def naive(logits):
        original = [1 / (1 + value.exp()) for value in logits.unbind()]
        pairs = zip(original, is_replaced.tolist(), strict=True)
        return sum(-(1 - d).log() if replaced else -d.log() for d, replaced in pairs)

    assert_same(lambda logits: replaced_tokens(logits, is_replaced), naive, 2 * normal(5, seed=1))
    assert torch.autograd.gradcheck(lambda z: replaced_tokens(z, is_replaced), normal(5, seed=2).requires_grad_())


def test_it_has_the_stated_values():
    """Prevents logarithms of 0 where the student is sure, and a mean in place of a sum."""
    is_replaced = torch.tensor([True, False, False])
    assert replaced_tokens(torch.zeros(3), is_replaced).item() == pytest.approx(3 * math.log(2))
    share = torch.full((3,), math.log(1 / 2))  # a third
    entropy = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert replaced_tokens(share, is_replaced).item() / 3 == pytest.approx(entropy)
    assert replaced_tokens(torch.tensor([200.0, -200.0, -200.0]), is_replaced).item() == 0
    with pytest.raises(ValueError, match=r"logits \(3,\), is_replaced \(1,\)"):
        replaced_tokens(torch.zeros(3), torch.tensor([True]))


def test_draws_have_the_teachers_distribution():
    """Prevents words that are drawn too often: evenly spread numbers give each word its share."""
    logits = 2 * normal(1, 7, seed=3).float()
    logits[0, 4] = -math.inf
    count = 100_000
    uniforms = (torch.arange(count) / count).float()
    drawn = draw_words(logits.expand(count, -1), uniforms)
    shares = torch.bincount(drawn, minlength=7) / count
    assert shares[4] == 0
    assert torch.allclose(shares, logits.softmax(-1)[0], atol=2e-5)


def test_draws_at_the_edges_are_words_that_the_teacher_gives_a_chance():
    """Prevents a first or last word without any, and an index behind the vocabulary."""
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]]).expand(2, -1)
    assert draw_words(logits, torch.tensor([0.0, 1 - 2**-24])).tolist() == [1, 2]
    assert draw_words(torch.full((1, 4), math.nan), torch.tensor([0.5])).item() < 4


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_chunks_draw_what_the_whole_would(size):
    """Prevents a chunk's words at another chunk's places, where other terms want more tokens than are masked."""
    head, words = 11, 6
    masked = torch.tensor([0, 2, 3, 7, 10])
    cuts = np.searchsorted(masked.numpy(), np.arange(0, head + size, size)).tolist()
    lazy = LazyLogits(normal(head, 4, seed=1).float(), 3 * normal(8, 4, seed=2).float())
    uniforms = torch.rand(5, generator=torch.Generator().manual_seed(4))
    batch = {"rows": {"logits/masked": masked}, "chunks": Chunks(size, {"masked": cuts}), "uniforms": uniforms}
    drawn = sampled_words(batch, lazy, words)
    assert torch.equal(drawn, draw_words(lazy.logits(0, head)[masked][:, :words], uniforms))
    assert drawn.max() < words


def test_it_is_for_masked_language_modelling_alone():
    """Prevents words put into texts of tasks that mask none."""
    assert ReplacedTokens.kinds() == ("mlm",)
