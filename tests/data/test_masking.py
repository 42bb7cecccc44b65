"""Dynamic masking."""

import numpy as np
import pytest
import torch
from scipy import stats

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.data.row_sets import EPOCH
from distil_nlp.errors import UserError
from tests.helpers import tiny

TOKENIZER = tiny.tokenizer()
CLS, SEP, MASK = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.mask_token_id
SPECIAL = set(TOKENIZER.all_special_ids)


def random_rows(count: int, length: int, seed: int = 0) -> list[dict]:
    """Rows of ordinary tokens between [CLS] and [SEP]."""
    ids = np.random.default_rng(seed).integers(len(SPECIAL), len(TOKENIZER), size=(count, length - 2))
    return [{"input_ids": [CLS, *row, SEP]} for row in ids.tolist()]


def test_fifteen_percent_of_which_80_10_10():
    """Prevents another objective than BERT's, with another fraction or mix."""
    rows = random_rows(100, 102)
    batch = MaskingCollator(TOKENIZER)(rows)
    original, chosen = torch.tensor([row["input_ids"] for row in rows]), batch["labels"] != -100
    assert chosen.sum(1).tolist() == [15] * 100
    assert (batch["labels"][chosen] == original[chosen]).all()
    assert (batch["input_ids"][~chosen] == original[~chosen]).all()
    became, was = batch["input_ids"][chosen], original[chosen]
    masked = (became == MASK).sum().item()
    kept = (became == was).sum().item()  # a random token is the old one by 1 in 54
    assert stats.binomtest(masked, 1500, 0.8).pvalue > 1e-3
    assert stats.binomtest(kept, 1500, 0.1 + 0.1 / 54).pvalue > 1e-3


def test_random_replacements_are_ordinary_tokens_of_all_kinds():
    """A [PAD] or [CLS] amid the text occurs in no real input."""
    rows = random_rows(200, 102)
    batch = MaskingCollator(TOKENIZER)(rows)
    original = torch.tensor([row["input_ids"] for row in rows])
    replaced = batch["input_ids"][(batch["input_ids"] != original) & (batch["input_ids"] != MASK)].tolist()
    assert not SPECIAL & set(replaced)
    assert len(set(replaced)) > 45


def test_separators_within_a_block_change_no_number():
    """Packed blocks would differ in shape by the documents that end in them, and each shape is compiled anew."""
    rows = random_rows(20, 62)
    for i, row in enumerate(rows):
        for place in range(1, i + 1):
            row["input_ids"][3 * place] = TOKENIZER.sep_token_id
    labels = MaskingCollator(TOKENIZER)(rows)["labels"]
    assert (labels != -100).sum(1).tolist() == [9] * 20
    assert not np.isin(labels, TOKENIZER.all_special_ids).any()


@pytest.mark.parametrize(("tokens", "chosen"), [(1, 1), (3, 1), (10, 2), (16, 2), (17, 3), (20, 3), (100, 15)])
def test_the_number_of_chosen_tokens_is_exact(tokens, chosen):
    """Counts that vary from row to row would change shapes in every step."""
    rows = random_rows(5, tokens + 2)
    assert (MaskingCollator(TOKENIZER)(rows)["labels"] != -100).sum(1).tolist() == [chosen] * 5


def test_every_place_is_chosen_as_often():
    """A bias to the start of a row would leave its end untaught."""
    rows = random_rows(600, 22)
    counts = (MaskingCollator(TOKENIZER)(rows)["labels"] != -100).sum(0)[1:-1]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_special_tokens_are_never_chosen():
    """Separators between packed documents are everywhere, and predicting them is trivial."""
    rows = [{"input_ids": [CLS, 10, SEP, 11, TOKENIZER.unk_token_id, SEP, 12, SEP], EPOCH: e} for e in range(100)]
    labels = MaskingCollator(TOKENIZER, probability=0.9)(rows)["labels"]
    assert set(labels.flatten().tolist()) == {-100, 10, 11, 12}


def test_a_row_of_special_tokens_alone_is_left_as_it_is():
    """There is nothing to choose, and that must not fail."""
    batch = MaskingCollator(TOKENIZER)([{"input_ids": [CLS, SEP]}])
    assert batch["input_ids"].tolist() == [[CLS, SEP]]
    assert batch["labels"].tolist() == [[-100, -100]]


def test_ragged_rows_are_padded_and_padding_is_not_attended():
    """Padding that is attended or labelled is learnt."""
    batch = MaskingCollator(TOKENIZER, probability=0.9)(random_rows(1, 6) + random_rows(1, 4))
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 4 + [0] * 2]
    assert batch["input_ids"][1, 4:].tolist() == [TOKENIZER.pad_token_id] * 2
    assert batch["labels"][1, 4:].tolist() == [-100] * 2
    assert batch["token_type_ids"].tolist() == [[0] * 6] * 2


def test_no_segments_where_the_tokenizer_makes_none():
    """DistilBERT's forward does not take them."""
    plain = tiny.tokenizer(model_input_names=["input_ids", "attention_mask"])
    assert set(MaskingCollator(plain)(random_rows(1, 6))) == {"input_ids", "attention_mask", "labels"}


WORDS = [-1, 0, 1, 1, 2, 3, 3, 3, 4, 5, -1, 5, 6, 6, 7, 8, -1]


def word_rows(count: int) -> list[dict]:
    """Rows with words of one to three tokens; word 5 ends one document, another word 5 begins the next."""
    rows = random_rows(count, len(WORDS))
    for row in rows:
        row["input_ids"][10] = SEP
        row["word_ids"] = WORDS
    return rows


def test_whole_words_are_masked_whole():
    """Half a word gives its other half away."""
    labels = MaskingCollator(TOKENIZER, probability=0.3, whole_words=True)(word_rows(200))["labels"]
    chosen = (labels != -100).numpy()
    for start, end in ((2, 4), (5, 8), (12, 14)):
        assert set(chosen[:, start:end].sum(1).tolist()) == {0, end - start}
    assert chosen.sum(1).max() <= 5
    assert chosen.sum(1).mean() > 4.5
    assert (chosen[:, 9] != chosen[:, 11]).any(), "words of two documents are not one"


def test_a_word_longer_than_the_fraction_is_masked_in_part():
    """A row must not stay without a target because its words are long, nor lose more tokens than were asked for."""
    labels = MaskingCollator(TOKENIZER, probability=0.01, whole_words=True)(word_rows(300))["labels"]
    assert (labels != -100).sum(1).tolist() == [1] * 300
    assert (labels != -100).any(0).tolist() == [word >= 0 for word in WORDS]


def test_tokens_are_masked_singly_unless_words_are_requested():
    """`word_ids` are there in every row of a corpus."""
    labels = MaskingCollator(TOKENIZER, probability=0.3)(word_rows(50))["labels"]
    assert 1 in (labels[:, 5:8] != -100).sum(1).tolist()


def test_rare_tokens_are_favoured_in_proportion():
    """DistilBERT's smoothing would be lost, or turned round."""
    rows = [{"input_ids": [CLS, *[10] * 9, 20, SEP], EPOCH: epoch} for epoch in range(1000)]
    even = MaskingCollator(TOKENIZER, probability=0.1)
    weights = np.zeros(len(TOKENIZER))
    weights[20] = np.log(9.0)
    favoured = MaskingCollator(TOKENIZER, probability=0.1, log_weights=weights)
    rare = [(collator(rows)["labels"] == 20).sum().item() for collator in (even, favoured)]
    assert stats.binomtest(rare[0], 1000, 1 / 10).pvalue > 1e-3
    assert stats.binomtest(rare[1], 1000, 9 / 18).pvalue > 1e-3


def masked(row: dict, neighbours: tuple = (), epoch: int = 0, seed: int = 0) -> list[int]:
    batch = MaskingCollator(TOKENIZER, seed=seed)([*neighbours, {**row, EPOCH: epoch}])
    return batch["input_ids"][-1, : len(row["input_ids"])].tolist()


def test_a_mask_depends_on_seed_epoch_and_row_alone():
    """Masks drawn from a worker's own randomness change with a resume or the number of workers."""
    row, *others = random_rows(4, 40)
    longer = random_rows(1, 60, seed=1)
    np.random.seed(5)
    torch.manual_seed(5)
    assert masked(row) == masked(row, tuple(others)) == masked(row, tuple(longer))
    assert masked(row) != masked(row, epoch=1)
    assert masked(row) != masked(row, seed=1)
    assert masked(row, epoch=1) == masked(row, tuple(others), epoch=1)


def test_the_rows_themselves_are_not_changed():
    """A dataset held in memory would be masked more with every epoch."""
    rows = [{"input_ids": np.array(row["input_ids"])} for row in random_rows(3, 20)]
    before = [row["input_ids"].tolist() for row in rows]
    MaskingCollator(TOKENIZER)(rows)
    assert [row["input_ids"].tolist() for row in rows] == before


def test_a_tokenizer_without_a_mask_token_is_an_error():
    """A causal model's tokenizer has none; None as an id fails far away."""
    with pytest.raises(UserError, match=r"expected a tokenizer with a mask token / got \w*Tokenizer\w* without one"):
        MaskingCollator(tiny.tokenizer(mask_token=None))


def test_token_frequencies_count_up_to_the_limit():
    """A token that never occurs would get an infinite weight."""
    rows = [{"input_ids": [1, 1, 3]}, {"input_ids": [3]}, {"input_ids": [0]}]
    assert token_frequencies(rows, 5).tolist() == [2, 3, 1, 3, 1]
    assert token_frequencies(iter(rows), 5, limit=2).tolist() == [1, 3, 1, 3, 1]
