"""Rows with several labels: the forms that they come in, rows without a label, and what cannot be read."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, List, Value

from distil_nlp.data import DataLimits
from distil_nlp.data.multilabel import LABELS, labelled_rows, load
from distil_nlp.errors import UserError
from distil_nlp.tasks import CUSTOM_TASKS, Task
from tests.helpers import tiny

TASK = Task("multilabel", ("text",), (), "f1_micro", "multilabel", CUSTOM_TASKS["multilabel"].evaluation_splits)
TEXTS = [*tiny.SENTENCES, "the cat and the dog", "a fish"]
SETS = [["b"], ["a", "b"], [], ["c", "a"], ["a"], ["b", "c"]]
WANTED = [[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 0, 0], [0, 1, 1]]
LIMITS = DataLimits(selection_share=None, data_seed=1, mask_seed=1)


def options(**changes):
    fields = dict(
        streaming=False, train_split="train", evaluation_splits=None, max_length=32, max_train_rows=None,
        max_evaluation_rows=None, num_proc=None, test_share=0.2, pad_to_multiple_of=None, label_columns=None,
        label_separator=None, share=1.0, labelled_share=1.0,
    )  # fmt: skip
    return SimpleNamespace(**fields | changes)


def loaded(columns, feature=None, test=None, task=TASK, limits=LIMITS, **changes):
    """The rows of these columns, the same in both splits unless others are given for the test."""
    splits = {}
    for name, part in {"train": columns, "test": test or columns}.items():
        texts = [text if name == "train" else f"{text} and" for text in TEXTS[: len(next(iter(part.values())))]]
        rows = Dataset.from_dict({"text": texts, **part})
        splits[name] = rows.cast_column("label", feature) if feature is not None else rows
    return load(DatasetDict(splits), tiny.tokenizer(), task, options(**changes), limits)


def flags(numbers=WANTED, kind=int):
    return [[kind(value) for value in row] for row in numbers]


FORMS = {
    "lists of names": ({"label": SETS}, {}, ("a", "b", "c")),
    "lists of numbers": ({"label": [["abc".index(one) for one in labels] for labels in SETS]}, {}, None),
    "named numbers": (
        {"label": [["abc".index(one) for one in labels] for labels in SETS]},
        {"feature": List(ClassLabel(names=["x", "y", "z"]))},
        ("x", "y", "z"),
    ),
    "floats of 0 and 1": ({"label": flags(kind=float)}, {}, None),
    "numbers of 0 and 1": ({"label": flags()}, {}, None),
    "strings": ({"label": ["|".join(one) or "|" for one in SETS]}, {"label_separator": "|"}, ("a", "b", "c")),
    "columns": (
        {name: [row[i] for row in WANTED] for i, name in enumerate("abc")},
        {"label_columns": ["a", "b", "c"]},
        ("a", "b", "c"),
    ),
    "columns of true and false": (
        {name: [bool(row[i]) for row in WANTED] for i, name in enumerate("xyz")},
        {"label_columns": ["x", "y", "z"]},
        ("x", "y", "z"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels(form):
    """Prevents a form that is read as another: 0 and 1 for numbers of classes, columns out of order."""
    columns, changes, names = FORMS[form]
    data = loaded(columns, **changes)
    assert data.head.labels == names
    assert data.head.num_labels == 3
    for rows in (data.split.train, data.split.evaluation["test"]):
        assert rows["labels"][:] == WANTED
    batch = data.collator([data.split.train[i] for i in range(4)])
    assert batch["labels"].tolist() == WANTED[:4]
    assert data.head.config()["problem_type"] == "multi_label_classification"


def test_columns_keep_labels_that_no_row_has():
    """Prevents a head of fewer outputs than the user named."""
    data = loaded({"a": [0, 1], "b": [0, 0], "c": [1, 1]}, label_columns=["c", "b", "a"])
    assert data.head.labels == ("c", "b", "a")
    assert data.split.train["labels"][:] == [[1, 0, 0], [1, 0, 1]]


def test_rows_without_labels_are_nan_and_left_out_of_learning_from_labels():
    """Prevents a null that is learnt as “none of them”; an empty list is that."""
    data = loaded({"label": [["a"], None, ["b"], []]}, test={"label": [["a"], ["b"]]})
    labels = np.array(data.split.train["labels"][:])
    assert np.isnan(labels).any(1).tolist() == [False, True, False, False]
    assert labels[3].tolist() == [0, 0]
    assert len(labelled_rows(data.split.train)) == data.num_labelled == 3
    columns = {"a": [1, None, 0], "b": [0, None, 0]}
    data = loaded(columns, test={"a": [1, 0], "b": [0, 1]}, label_columns=["a", "b"])
    assert data.num_labelled == 2
    assert labelled_rows(data.split.evaluation["test"]) is data.split.evaluation["test"]


def test_a_rare_label_is_scored_too():
    """Prevents rows that are kept for scoring without the label that few rows have."""
    sets = [["common", "rare"] if i % 10 == 0 else ["common"] if i % 3 else [] for i in range(60)]
    assert LABELS.strata([*sets[:3], None]) == ["rare", "common", "common", None]
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(60)], "label": sets})
    data = load(DatasetDict({"train": rows}), tiny.tokenizer(), TASK, options(), LIMITS)
    scored = np.array(data.split.evaluation["test"]["labels"][:])
    assert data.split.held_out == "test"
    assert scored.sum(0).tolist()[data.head.labels.index("rare")] == 1
    assert len(scored) == 12


FEW = {"label": [["a"], ["b"]]}
WRONG = {
    "one class a row": ({"label": ["a", "b"]}, {}, "a list of labels in each row .*data.task=classification"),
    "a number a row": ({"label": [0, 1]}, {}, "a list of labels in each row / got Value.*data.label_columns"),
    "strings without a separator": ({"label": ["a|b", "b"]}, {}, r"where a label ends / set data.label_separator='\|'"),
    "a single label": ({"label": [["a"], []]}, {}, "two labels or more in train / got 1"),
    "no labels": ({"label": [None, None]}, {"feature": List(Value("string"))}, "unlabelled rows only"),
    "no such column": (
        {"labels": [["a"], ["b"]]},
        {},
        "a column 'label' in test / got text, labels .*name the label column",
    ),
    "negative numbers": ({"label": [[-1], [1]]}, {}, "classes numbered from 0 on / got -1, 1"),
    "far numbers": ({"label": [[0], [5000]]}, {}, "classes numbered from 0 on"),
    "fractions": ({"label": [[0.5], [1.0]]}, {}, "lists of names, or of classes numbered"),
    "two spellings": ({"label": [["a"], ["A"]]}, {}, "one spelling of each class"),
    "unknown in the test": (FEW, {"test": {"label": [["a"], ["d"]]}}, r"got 'd' in test \(1 rows\)"),
    "null in the test": (FEW, {"test": {"label": [["a"], None]}}, "every row of test labelled"),
    "another length": (
        {"label": [[0.0, 1.0], [1.0, 0.0]]},
        {"test": {"label": [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]}},
        "2 numbers in a row, 0 or 1",
    ),
    "a column that is missing": ({"a": [0, 1]}, {"label_columns": ["a", "b"]}, "b cannot be read"),
    "counts in a column": ({"a": [0, 2], "b": [0, 1]}, {"label_columns": ["a", "b"]}, "0 or 1 in 'a' / got 2"),
    "names in a column": ({"a": ["x", "y"], "b": [0, 1]}, {"label_columns": ["a", "b"]}, "0 or 1 in 'a' / got 'x'"),
    "hidden labels": ({"a": [-1, -1], "b": [-1, -1]}, {"label_columns": ["a", "b"]}, "write null for a row"),
    "half a row": ({"a": [1, None], "b": [0, 1]}, {"label_columns": ["a", "b"]}, "null in some of them in 1 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_said(case):
    """Prevents labels that are guessed, and Python errors."""
    columns, changes, said = WRONG[case]
    with pytest.raises(UserError, match=said):
        loaded(columns, **changes)


def test_splits_that_are_not_read_may_hide_their_labels():
    """Prevents an error for −1 in a test split that nobody scores on."""
    train = Dataset.from_dict({"text": TEXTS[:2], "a": [0, 1], "b": [1, 1]})
    test = Dataset.from_dict({"text": TEXTS[2:4], "a": [-1, -1], "b": [-1, -1]})
    known = Dataset.from_dict({"text": TEXTS[4:5], "a": [1], "b": [1]})
    splits = DatasetDict({"train": train, "validation": known, "test": test})
    chosen = options(label_columns=["a", "b"], evaluation_splits=["validation"])
    data = load(splits, tiny.tokenizer(), TASK, chosen, LIMITS)
    assert data.split.evaluation["validation"]["labels"][:] == [[1, 1]]


def test_a_stream_is_refused_as_for_other_tasks():
    """Prevents a stream that is read to its end to find the classes."""
    with pytest.raises(UserError, match=r"data\.streaming: expected false for a task"):
        loaded(FEW, streaming=True)


def test_encoded_labels_say_which_rows_are_unlabelled():
    """Prevents a second convention beside NaN."""
    assert all(math.isnan(value) for row in LABELS.unlabelled(2, 3) for value in row)
    assert LABELS.encode([["b", "b"]], ("a", "b"), 2)[0].tolist() == [0, 1]
