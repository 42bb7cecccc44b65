"""Rows of a task as tokens and labels."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from distil_nlp.data import TaskCollator, labelled_rows, load_task, split_off
from distil_nlp.data.splits import limit_rows
from distil_nlp.errors import UserError
from distil_nlp.tasks import CUSTOM_TASKS, GLUE, Task
from tests.helpers import tiny

TOKENIZER = tiny.tokenizer()
TEXTS = ("the cat", "a big dog", "the red bird sees", "a fish")
OWN_TASK, REGRESSION = CUSTOM_TASKS["classification"], CUSTOM_TASKS["regression"]


def rows(labels: list | None = (0, 1, 0, 1), names: tuple[str, ...] | None = None, **texts) -> Dataset:
    """Return a split with a text column (or the named ones) and labels, as a ClassLabel if they have names."""
    columns = {name: list(values) for name, values in (texts or {"text": TEXTS}).items()}
    if labels is None:
        return Dataset.from_dict(columns)
    features = (
        Features({name: Value("string") for name in columns} | {"label": ClassLabel(names=list(names))})
        if (names)
        else None
    )
    return Dataset.from_dict({**columns, "label": list(labels)}, features=features)


def load(task: Task, splits: dict[str, Dataset], **options):
    return load_task(DatasetDict(splits), TOKENIZER, task, **options)


def labels_of(dataset: Dataset) -> list:
    return list(dataset["labels"])


def test_single_texts_are_tokenised_with_their_length():
    """Collators and length grouping read these columns, and no others may remain."""
    train = load(OWN_TASK, {"train": rows(), "test": rows()}).split.train
    assert set(train.column_names) == {"input_ids", "token_type_ids", "attention_mask", "length", "labels"}
    assert [TOKENIZER.decode(ids) for ids in train["input_ids"]] == [f"[CLS] {text} [SEP]" for text in TEXTS]
    assert list(train["length"]) == [len(ids) for ids in train["input_ids"]]


def test_pairs_have_segments():
    """A pair read as one segment costs a BERT teacher its accuracy, in silence."""
    pair = rows(text_a=TEXTS, text_b=reversed(TEXTS))
    task = dataclasses.replace(OWN_TASK, text_columns=("text_a", "text_b"))
    train = load(task, {"train": pair, "test": pair}).split.train
    assert TOKENIZER.decode(train[0]["input_ids"]) == "[CLS] the cat [SEP] a fish [SEP]"
    assert train[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_texts_are_cut_and_null_is_an_empty_text():
    """Longer inputs have no position embedding; None is no text to tokenise."""
    split = rows(text=["the cat " * 20, None, "a", "the dog"])
    train = load(OWN_TASK, {"train": split, "test": rows()}, max_length=10).split.train
    assert list(train["length"]) == [10, 2, 3, 4]


def test_class_labels_name_their_classes_in_order():
    """Sorted or guessed names would mix up the classes."""
    split = rows(names=("zebra", "ant"))
    data = load(OWN_TASK, {"train": split, "test": split})
    assert (data.task, data.kind.name, data.labels, data.num_labels) == (
        "classification",
        "classification",
        ("zebra", "ant"),
        2,
    )
    assert labels_of(data.split.train) == [0, 1, 0, 1]


def test_strings_are_numbered_in_alphabetic_order():
    """The order of first sight would change with the shuffle."""
    split = rows(["pos", "neg", "mid", "pos"])
    data = load(OWN_TASK, {"train": split, "test": split})
    assert (data.labels, data.num_labels) == (("mid", "neg", "pos"), 3)
    assert labels_of(data.split.train) == labels_of(data.split.evaluation["test"]) == [2, 1, 0, 2]


def test_whole_numbers_are_class_ids():
    """A class missing from the training rows must not shift the others."""
    data = load(OWN_TASK, {"train": rows([0, 3, 1, 3]), "test": rows([2, 0, 1, 3])})
    assert (data.labels, data.num_labels) == (None, 4)
    assert labels_of(data.split.evaluation["test"]) == [2, 0, 1, 3]


def test_the_label_column_may_have_any_name():
    """Also the name that the tokenised rows use."""
    split = rows().rename_column("label", "labels")
    data = load(dataclasses.replace(OWN_TASK, label_column="labels"), {"train": split, "test": split})
    assert labels_of(data.split.train) == [0, 1, 0, 1]


def test_regression_has_one_output_and_float_labels():
    """Integer scores made classes would lose their order."""
    data = load(REGRESSION, {"train": rows([0, 5, 2, 1]), "test": rows([0.5, 5.0, 2.5, 1.0])})
    assert (data.task, data.kind.name, data.labels, data.num_labels) == ("regression", "regression", None, 1)
    assert data.split.train.features["labels"] == Value("float32")
    assert labels_of(data.split.evaluation["test"]) == [0.5, 5.0, 2.5, 1.0]


@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        ([0, -100, None, 1], [0, -100, -100, 1], 2),
        (["neg", None, "pos", None], [0, -100, 1, -100], 2),
        ([0.0, 1.0, math.nan, 1.0], [0, 1, -100, 1], 2),  # what a CSV file with an empty cell becomes
        ([0.0, 1.0, None, 1.0], [0, 1, -100, 1], 2),
    ],
    ids=["-100 and null", "strings", "NaN", "floats and null"],
)
def test_unlabelled_training_rows_get_minus_100(labels, expected, classes):
    """Unlabelled text is what distillation is for; a wrong id would teach class 0."""
    data = load(OWN_TASK, {"train": rows(labels), "test": rows([0, 1, 0, 1])})
    assert labels_of(data.split.train) == expected
    assert data.num_labels == classes


@pytest.mark.parametrize("labels", [[0.5, None, math.nan, -100.0], None])
def test_unlabelled_rows_of_a_regression_get_nan(labels):
    """−100 would be learnt as a number."""
    train = load(REGRESSION, {"train": rows(labels), "test": rows([0.5, 1.0, 2.0, 3.0])}).split.train
    known = [] if labels is None else [0.5]
    assert labels_of(train)[: len(known)] == known
    assert all(math.isnan(value) for value in labels_of(train)[len(known) :])
    assert len(train) == 4


def test_a_glue_task_may_train_on_unlabelled_rows():
    """The task table knows its classes, so soft targets need no labels."""
    data = load(GLUE["sst2"], {"train": rows(None, sentence=TEXTS), "validation": rows(sentence=TEXTS)})
    assert (data.task, data.labels) == ("sst2", ("negative", "positive"))
    assert labels_of(data.split.train) == [-100] * 4


@pytest.mark.parametrize("labels", [[-100] * 4, [None] * 4])
def test_the_number_of_classes_must_be_known(labels):
    """Training rows without any label cannot say how many classes there are."""
    with pytest.raises(UserError, match="number of classes is unknown"):
        load(OWN_TASK, {"train": rows(labels), "test": rows()})


def test_a_missing_label_column_in_training_is_an_error():
    """The same, without the column."""
    with pytest.raises(
        UserError, match="expected labels in 'label' of the training split / got no such column, but text / the number"
    ):
        load(OWN_TASK, {"train": rows(None), "test": rows()})


@pytest.mark.parametrize("options", [{"train_split": "trian"}, {"evaluation_splits": ["test", "trian"]}])
def test_a_missing_split_is_an_error(options):
    """A KeyError names no remedy."""
    with pytest.raises(UserError, match="expected a split 'trian' / got train, test"):
        load(OWN_TASK, {"train": rows(), "test": rows()}, **options)


def test_no_labelled_split_is_an_error():
    """There would be no score."""
    with pytest.raises(UserError, match=r"\(test, validation, dev\) / got train, extra / there would be no score"):
        load(OWN_TASK, {"train": rows(), "extra": rows()})


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_text_column_is_an_error(split):
    """The commonest mistake with a dataset of one's own."""
    splits = {"train": rows(), "test": rows(), split: rows(body=TEXTS)}
    with pytest.raises(UserError, match=f"expected columns text / got body, label in {split} / text cannot be read"):
        load(OWN_TASK, splits)


def test_a_missing_label_column_in_evaluation_is_an_error():
    """GLUE's test splits; scores need labels."""
    with pytest.raises(UserError, match="expected a column 'label' in test / got text / scores need labels"):
        load(OWN_TASK, {"train": rows(), "test": rows(None)})


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_an_error(split):
    """Training on nothing ends at once, and a score over nothing is NaN."""
    with pytest.raises(UserError, match=f"expected rows in {split} / got none"):
        load(OWN_TASK, {"train": rows(), "test": rows(), split: rows([], text=[])})


def test_an_evaluation_row_without_label_is_an_error():
    """−100 would count as a wrong answer."""
    with pytest.raises(UserError, match="every row of test labelled / got 2 of 4 without a label"):
        load(OWN_TASK, {"train": rows(), "test": rows([0, None, -100, 1])})


@pytest.mark.parametrize(
    ("task", "train", "test", "message"),
    [
        (OWN_TASK, [0, 1, 0, 1], [0, 2, 3, 1], r"expected labels from 0 to 1 / got 2, 3 in test \(2 rows\)"),
        (OWN_TASK, [0, -1, 0, 1], [0, 0, 0, 1], r"classes numbered from 0 on \(0, 1, 2\) / got -1, 0, 1 in"),
        (OWN_TASK, ["a", "b", "a", "b"], ["a", "x", "a", "b"], r"from 0 to 1 \(a, b\) / got 'x' in test"),
        (
            REGRESSION,
            [0.5, math.inf, 1, 2],
            [1, 2, 3, 4],
            r"expected numbers below 1e\+18 / got inf in train \(1 rows\)",
        ),
        (
            REGRESSION,
            [1, 2, 3, 4],
            ["1", "2", "x", "4"],
            r"expected numbers below 1e\+18 / got '1', '2', 'x' in test \(4 rows\)",
        ),
    ],
    ids=["beyond", "negative", "unknown name", "infinite", "text"],
)
def test_labels_out_of_range_are_an_error(task, train, test, message):
    """An id beyond the classes is an assertion deep in CUDA, or another class."""
    with pytest.raises(UserError, match=message):
        load(task, {"train": rows(train), "test": rows(test)})


def test_numbers_that_are_no_classes_are_an_error():
    """Scores would be made classes by rounding."""
    with pytest.raises(UserError, match=r"expected whole numbers or names of classes / got 0\.5, 1\.5"):
        load(OWN_TASK, {"train": rows([0.5, 1.5, 0.5, 1.5]), "test": rows()})


def test_another_label_order_than_glues_is_an_error():
    """MNLI's ids differ between sources: accuracy 43 % instead of 83 %, without a word."""
    columns = {"premise": TEXTS, "hypothesis": TEXTS}
    splits = {"train": rows(names=("contradiction", "entailment", "neutral"), **columns)}
    splits |= {name: rows(**columns) for name in GLUE["mnli"].evaluation_splits}
    with pytest.raises(UserError, match=r"neutral, contradiction of mnli .* got contradiction, entailment, neutral"):
        load(GLUE["mnli"], splits)


def test_a_glue_task_is_scored_on_all_its_own_splits():
    """MNLI has two; its test labels are not public."""
    columns = {"premise": TEXTS, "hypothesis": TEXTS}
    labelled = rows(names=GLUE["mnli"].labels, **columns)
    data = load(GLUE["mnli"], {"train": labelled, "test_matched": rows([-1] * 4, **columns)} | {
        name: labelled for name in GLUE["mnli"].evaluation_splits
    })  # fmt: skip
    assert list(data.split.evaluation) == ["validation_matched", "validation_mismatched"]
    assert (data.task, data.num_labels) == ("mnli", 3)


def many(count: int, start: int = 0) -> Dataset:
    """Rows with texts that are all different."""
    digits = [" ".join("abcdefghij"[int(d)] for d in f"{i:04}") for i in range(start, start + count)]
    return rows([i % 2 for i in range(count)], text=digits)


def contents(dataset: Dataset) -> set[tuple]:
    return set(map(tuple, dataset["input_ids"]))


def test_selection_is_validation_where_test_is_reported():
    """A checkpoint chosen on the reported split flatters the score."""
    splits = {"train": many(40), "validation": many(10, 100), "test": many(10, 200)}
    split = load(OWN_TASK, splits, selection_share=0.1).split
    assert list(split.evaluation) == ["test"]
    assert len(split.train) == 40
    assert len(split.selection) == 10
    assert contents(split.selection).isdisjoint(contents(split.train) | contents(split.evaluation["test"]))


def test_selection_is_split_off_where_validation_is_reported():
    """The same where GLUE leaves no other split."""
    splits = {"train": many(40), "validation": many(10, 100)}
    split = load(OWN_TASK, splits, selection_share=0.1).split
    assert (len(split.train), len(split.selection), list(split.evaluation)) == (36, 4, ["validation"])
    assert contents(split.selection).isdisjoint(contents(split.train))
    again = load(OWN_TASK, splits, selection_share=0.1).split
    assert contents(split.selection) == contents(again.selection)
    assert contents(split.selection) != contents(load(OWN_TASK, splits, selection_share=0.1, seed=1).split.selection)
    assert load(OWN_TASK, splits).split.selection is None


def test_selection_is_never_the_training_split():
    """With train_split=validation the checkpoint would be chosen by the rows it was trained on."""
    splits = {"validation": many(40), "test": many(10, 200)}
    split = load(OWN_TASK, splits, train_split="validation", selection_share=0.1).split
    assert contents(split.selection).isdisjoint(contents(split.train))


@pytest.mark.parametrize("selection", [rows(None), rows(body=TEXTS), rows([], text=[])], ids=["label", "text", "rows"])
def test_a_selection_split_is_checked_like_the_others(selection):
    """A choice by a split without labels, texts or rows fails after the first epoch, or chooses by noise."""
    with pytest.raises(UserError, match="validation"):
        load(OWN_TASK, {"train": rows(), "validation": selection, "test": rows()}, selection_share=0.1)


def test_rows_are_limited_by_seed():
    """Files are often sorted by label: the first rows would be one class."""
    splits = {"train": many(40), "test": many(20, 100)}
    first, again, other = (
        load(OWN_TASK, splits, max_train_rows=10, max_evaluation_rows=5, seed=seed).split for seed in (1, 1, 2)
    )
    assert (len(first.train), len(first.evaluation["test"])) == (10, 5)
    assert contents(first.train) == contents(again.train) != contents(other.train)
    head = many(40)
    assert list(limit_rows(head, 10, 1)["text"]) != list(head["text"])[:10]
    assert limit_rows(head, 40, 1) is limit_rows(head, None, 1) is head


@pytest.mark.parametrize(("count", "fraction", "sizes"), [(10, 0.2, (8, 2)), (2, 0.9, (1, 1)), (5, 0.01, (4, 1))])
def test_splitting_off_leaves_rows_on_both_sides(count, fraction, sizes):
    """Prevents a fraction that rounds to none or all of the rows."""
    rest, part = split_off(many(count), fraction, 0, "x")
    assert (len(rest), len(part)) == sizes
    assert sorted([*rest["text"], *part["text"]]) == sorted(many(count)["text"])


def test_one_row_cannot_be_split():
    """Prevents an empty part."""
    with pytest.raises(UserError, match=r"a fraction of 0\.25 for the choice / got 1 "):
        split_off(many(1), 0.25, 0, "the choice")


@pytest.mark.parametrize(("kind", "labels", "dtype"), [
    ("classification", [1, -100], torch.int64),
    ("regression", [0.5, math.nan], torch.float32),
])  # fmt: skip
def test_the_collator_pads_and_types_labels(kind, labels, dtype):
    """Float class ids fail in cross-entropy; rounded scores train on other numbers."""
    features = [
        {**TOKENIZER(text, "a dog"), "length": 9, "labels": label} for text, label in zip(TEXTS, labels, strict=False)
    ]
    batch = TaskCollator(TOKENIZER, kind)(features)
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert batch["labels"].dtype == dtype
    assert np.array_equal(batch["labels"].numpy(), labels, equal_nan=True)
    assert batch["attention_mask"].tolist() == [[1] * 7 + [0], [1] * 8]
    assert batch["input_ids"][0].tolist() == [*features[0]["input_ids"], TOKENIZER.pad_token_id]


def test_the_collator_takes_rows_without_labels():
    """Prediction has none."""
    assert "labels" not in TaskCollator(TOKENIZER, "classification")([dict(TOKENIZER("the cat"))])


@pytest.mark.parametrize("task", [OWN_TASK, REGRESSION], ids=["classes", "numbers"])
def test_labelled_rows_are_those_with_a_label(task):
    """Prevents batches of a fine-tuned teacher that are mostly rows it cannot learn from."""
    train = load(task, {"train": rows([0, None, 1, None]), "test": rows()}).split.train
    assert labels_of(labelled_rows(train)) == [0, 1]
