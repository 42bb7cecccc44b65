"""Row sets, as the collator draws them."""

import numpy as np
import pytest
import torch
import transformers

from distil_nlp.data.row_sets import EPOCH, FILLER, RowCollator, RowSets, row_generator
from tests.helpers import tiny

TOKENIZER = tiny.tokenizer()
COLUMNS = frozenset({"input_ids", "attention_mask", "token_type_ids", "labels"})


def collator(kind: str, names: set[str], logits: set[str] = frozenset(), seed: int = 0, inner=None) -> RowCollator:
    inner = inner or transformers.DataCollatorWithPadding(TOKENIZER)
    return RowCollator(inner, RowSets(kind, frozenset(names), frozenset(logits)), COLUMNS, seed)


def feature(text: str, **columns) -> dict:
    return {**TOKENIZER(text), **columns}


def mlm_batch(features: list[dict], names: set[str], logits: set[str], **columns) -> dict:
    inner = transformers.DataCollatorForLanguageModeling(TOKENIZER, mlm_probability=0.4, seed=1)
    return collator("mlm", names, logits, inner=inner)([{**one, **columns} for one in features])


def test_all_are_the_attended_tokens():
    """Padding in a mean over tokens makes the loss depend on the batch."""
    batch = collator("classification", {"all"})([feature("the cat"), feature("the big red dog")])
    assert batch["input_ids"].shape == (2, 6)
    assert batch["rows"]["all"].tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert batch["tokens"] == 10


def test_rows_are_found_when_padded_on_the_left():
    """Counting from the start of a row would take padding for text."""
    left = transformers.DataCollatorWithPadding(tiny.tokenizer(padding_side="left"))
    batch = collator("classification", {"all"}, inner=left)([feature("the cat"), feature("the big red dog")])
    assert batch["rows"]["all"].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_a_batch_without_an_attention_mask_is_all_attended():
    """Collators of packed blocks make no mask."""
    ids = torch.tensor([[2, 5, 6], [7, 8, 3]])
    batch = collator("classification", {"all"}, inner=lambda features: {"input_ids": ids})([{}, {}])
    assert batch["rows"]["all"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_mask_goes_only_where_there_is_padding():
    """Looking at a mask of ones synchronises a GPU, and attention with a mask runs slower kernels."""
    assert "attention_mask" not in collator("classification", {"all"})([feature("the cat"), feature("a dog")])
    assert "attention_mask" in collator("classification", {"all"})([feature("the cat"), feature("a")])


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_chunks_cut_every_set_where_the_heads_rows_are_cut(size):
    """A row that falls between two chunks, or into both, is lost or counted twice."""
    inner = transformers.DataCollatorForLanguageModeling(TOKENIZER, mlm_probability=0.4, seed=1)
    sets = RowSets("mlm", frozenset({"masked", "0.3", "all"}), frozenset({"masked", "0.3"}), size)
    batch = RowCollator(inner, sets, COLUMNS)([feature(text) for text in tiny.SENTENCES])
    rows, chunks = batch["rows"], batch["chunks"]
    assert set(chunks.cuts) == {"masked", "0.3"}
    parts = {name: [] for name in chunks.cuts}
    for number, head in enumerate(rows["head"].split(size)):
        part = chunks.rows(rows, number)
        for name in parts:
            assert head[part[f"logits/{name}"]].tolist() == part[name].tolist()
            parts[name] += part[name].tolist()
    assert parts == {name: rows[name].tolist() for name in parts}


def test_masked_are_the_tokens_with_a_label():
    """Row sets and labels must name the same tokens, with transformers' own collator."""
    batch = mlm_batch([feature(text) for text in tiny.SENTENCES], {"masked"}, {"masked"})
    expected = (batch["labels"].flatten() != -100).nonzero().flatten()
    assert 5 < len(expected) < 30
    assert batch["rows"]["masked"].tolist() == expected.tolist()


def test_logits_are_places_among_the_rows_of_the_head():
    """A term would compare the logits of other tokens than its own."""
    names = {"masked", "0.3", "all"}
    batch = mlm_batch([feature(text) for text in tiny.SENTENCES], names, {"masked", "0.3"})
    rows = batch["rows"]
    assert rows["head"].tolist() == sorted({*rows["masked"].tolist(), *rows["0.3"].tolist()})
    assert len(rows["head"]) < len(rows["all"])
    for name in ("masked", "0.3"):
        assert rows["head"][rows[f"logits/{name}"]].tolist() == rows[name].tolist()
    assert "logits/all" not in rows


def test_logits_of_sequences_are_the_sequences():
    """A classifier's head runs on every sequence, so places are positions in the batch."""
    batch = collator("classification", {"sequences", "labelled"}, {"sequences", "labelled"})(
        [feature("the cat", labels=label) for label in (1, -100, 0)]
    )
    assert batch["rows"]["sequences"].tolist() == batch["rows"]["logits/sequences"].tolist() == [0, 1, 2]
    assert batch["rows"]["labelled"].tolist() == batch["rows"]["logits/labelled"].tolist() == [0, 2]
    assert "head" not in batch["rows"]


def test_unlabelled_rows_of_a_regression_are_nan():
    """A NaN in the hard-label term would make the whole loss NaN."""
    rows = [feature("the cat", labels=value) for value in (0.5, float("nan"), -100.0)]
    assert collator("regression", {"labelled"})(rows)["rows"]["labelled"].tolist() == [0, 2]


def test_without_labels_no_row_is_labelled():
    """A transfer set may have none at all."""
    batch = collator("classification", {"labelled", "sequences"})([feature("the cat")])
    assert batch["rows"]["labelled"].tolist() == []
    assert batch["rows"]["sequences"].tolist() == [0]


def test_fillers_belong_to_no_set():
    """Rows that only even out the last batch would be counted twice."""
    features = [feature(text, labels=1) for text in ("the cat", "a dog", "the cat")]
    features = [{**columns, FILLER: i == 1} for i, columns in enumerate(features)]
    names = {"all", "sequences", "labelled", "0.5"}
    batch = collator("classification", names)(features)
    rows = {name: set(batch["rows"][name].tolist()) for name in names}
    assert rows["all"] == {0, 1, 2, 3, 8, 9, 10, 11}
    assert rows["sequences"] == rows["labelled"] == {0, 2}
    assert rows["0.5"] < rows["all"]
    assert batch["tokens"] == 8
    assert batch["input_ids"].shape[0] == 3


def test_masked_tokens_of_fillers_belong_to_no_set():
    """The same for language modelling."""
    features = [feature(tiny.SENTENCES[1]), feature(tiny.SENTENCES[1], **{FILLER: True})]
    batch = mlm_batch(features, {"masked"}, {"masked"})
    assert (batch["labels"][1] != -100).any()
    assert batch["rows"]["masked"].max() < batch["input_ids"].shape[1]
    assert batch["rows"]["head"].tolist() == batch["rows"]["masked"].tolist()


def test_a_batch_of_fillers_has_no_rows():
    """One process of several may get nothing but fillers."""
    features = [feature("the cat", labels=1, **{FILLER: True})]
    batch = collator("classification", {"all", "labelled", "0.5"})(features)
    assert {name: rows.tolist() for name, rows in batch["rows"].items()} == {"all": [], "labelled": [], "0.5": []}


def sampled(features: list[dict], row: int, fraction: str = "0.4", pad: str = "right", seed: int = 0) -> list[int]:
    """Return the positions within its own text that were drawn in a row of a batch."""
    inner = transformers.DataCollatorWithPadding(tiny.tokenizer(padding_side=pad))
    batch = collator("classification", {fraction}, seed=seed, inner=inner)(features)
    length = batch["input_ids"].shape[1]
    start = length - len(features[row]["input_ids"]) if pad == "left" else 0
    return [at - row * length - start for at in batch["rows"][fraction].tolist() if at // length == row]


def test_sampled_rows_depend_on_seed_epoch_and_content_alone():
    """Prevents samples that depend on the other rows, padding, workers or a resume."""
    long, short = feature(tiny.SENTENCES[3]), feature("the cat")
    alone = sampled([long], 0)
    assert len(alone) == round(0.4 * len(long["input_ids"]))
    assert alone == sampled([short, long], 1) == sampled([short, long, short], 1, pad="left")
    wider = feature(tiny.SENTENCES[3] + " and a dog")
    assert alone == sampled([long, wider], 0) == sampled([wider, long], 1, pad="left")
    assert alone != sampled([long], 0, seed=1)
    assert alone != sampled([{**long, EPOCH: 1}], 0)
    assert sampled([{**long, EPOCH: 1}], 0) == sampled([short, {**long, EPOCH: 1}], 1)


def test_each_row_gives_at_least_one_sampled_token():
    """Prevents a fraction of a short row that rounds to nothing, and a term without rows."""
    assert len(sampled([feature("the cat"), feature("a")], 1, fraction="0.05")) == 1


def test_sampled_rows_favour_no_position():
    """A sample that leans to the start of a row would rarely teach its end."""
    drawn = [at for epoch in range(400) for at in sampled([feature("the cat sees the dog", **{EPOCH: epoch})], 0)]
    counts = np.bincount(drawn, minlength=7)
    assert counts.sum() == 400 * 3
    assert np.abs(counts - 400 * 3 / 7).max() < 50  # five standard deviations


def test_unknown_columns_are_dropped_and_known_ones_kept():
    """Text reaching a stock collator fails; segments lost on the way make the teacher read one segment."""
    features = [{**TOKENIZER("the cat", "a dog"), "text": "the cat", "idx": 7, EPOCH: 3, FILLER: False}]
    batch = collator("classification", {"all"})(features)
    assert set(batch) == {"input_ids", "token_type_ids", "rows", "tokens"}
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_a_collator_that_wants_the_epoch_gets_it():
    """Dynamic masking would repeat one mask in every epoch."""

    class Wants:
        wants_epoch = True

        def __call__(self, features):
            self.features = features
            return {"input_ids": torch.zeros(len(features), 2, dtype=torch.long)}

    inner = Wants()
    collator("mlm", {"all"}, inner=inner)([{"input_ids": [1, 2], EPOCH: 3, "text": "x"}])
    assert inner.features == [{"input_ids": [1, 2], EPOCH: 3}]


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epoch": 1}, {"salt": 1}, {"token_ids": np.array([1, 2, 4])}])
def test_randomness_is_a_function_of_seed_epoch_content_and_salt(changed):
    """Masks and samples drawn from one stream would be correlated."""
    known = {"seed": 0, "epoch": 0, "token_ids": np.array([1, 2, 3]), "salt": 0}
    first = row_generator(**known).random(4).tolist()
    assert first == row_generator(**{**known, "token_ids": np.array([1, 2, 3], dtype=np.int32)}).random(4).tolist()
    assert first != row_generator(**{**known, **changed}).random(4).tolist()
