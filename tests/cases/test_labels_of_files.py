"""Labels that are none, or are numbered or spelt otherwise: the message blames the column, and its remedy helps."""

import logging

import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from distil_nlp.data import load_task
from distil_nlp.data.paths import all_paths, files_of_splits
from distil_nlp.errors import UserError
from distil_nlp.recipe import load_recipe
from distil_nlp.tasks import CUSTOM_TASKS
from tests.helpers import tiny
from tests.helpers.runs import Place

TOKENIZER = tiny.tokenizer()
CLASSES = CUSTOM_TASKS["classification"]


def rows(labels: list, texts: list | None = None) -> Dataset:
    return Dataset.from_dict({"text": texts or [f"the cat sees {i}" for i in range(len(labels))], "label": labels})


def load(train: list, test: list, task=CLASSES, **splits):
    return load_task(DatasetDict(train=rows(train), test=rows(test), **splits), TOKENIZER, task)


REFUSED = {
    "from 1 on": ([1, 2, 3, 4, 5], [2, 1], r"from 0 on \(0, 1, 2, 3, 4\) / got 1, 2, 3, 4, 5 in 'label'.* take 1 from"),
    "from 1 on, as floats": ([1.0, 2.0], [2.0, 1.0], r"\(0, 1\) / got 1, 2 in 'label'"),
    "from 1 on, many": (list(range(1, 21)), [3, 3], r"\(0, 1, … 19\) / got 1, 2, … 20"),
    "−1 and 1": ([-1, 1, -1], [1, -1], r"from 0 on \(0, 1\) / got -1, 1 in 'label' / a negative number is no class"),
    "−1, 0 and 1": ([-1, 0, 1], [0, 1], r"got -1, 0, 1 .* write −100 or null for a row without a label"),
    "a hidden test split": (
        [0, 1, 0],
        [-1, -1],
        r"got -1, -1 in test .*evaluation_splits, such as \[validation\]",
    ),
    "a hidden test split of names": (["a", "b"], ["-1", "-1"], r"such as \[validation\]"),
    "some hidden labels": ([0, 1, 0], [-1, 1], "write −100 or null for an unlabelled row"),
    "two spellings": (["Neg", "neg", "pos"], ["neg", "pos"], "one spelling of each class / got 'Neg', 'neg'"),
    "another spelling in the test": (
        ["Neg", "pos"],
        ["neg", "pos"],
        "got 'neg' in test .* spell them as in",
    ),
    "another space in the test": (
        ["neg", "pos"],
        ["neg ", "pos"],
        "got 'neg ' in test .* spell them as in",
    ),
    "a class that training has not": (["a", "b"], ["a", "c"], "got 'c' in test .* training rows of their classes"),
    "a number that training has not": ([0, 1], [0, 2], "labels from 0 to 1 / got 2 in test"),
    "numbers of ids": (
        list(range(60)),
        list(range(30)),
        r"another value in each of 60 rows of train .*\(text, label\)",
    ),
    "names of ids": ([f"id{i}" for i in range(60)], ["id1", "id2"], "ids and texts are no classes"),
    "tags of tokens": (
        [[0, 1], [1, 0]],
        [[0, 1]],
        r"data.task=multilabel for several labels a row.* with data.task=mlm and fine-tune the student",
    ),
    "ratings": ([0.5, 1.5, 2.0], [0.5, 1.5], "use data.task=regression"),
    "one class": (["yes"] * 3, ["yes"], r"two classes or more in train / got one \(yes\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_message_names_what_is_wrong_with_the_labels(name):
    """Prevents advice about the teacher, or to mend rows that are as they should be."""
    train, test, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        load(train, test)


ACCEPTED = {
    "floats of classes": ([0.0, 1.0, None], [1.0, 0.0], None, 2),
    "decimal strings": (["0.0", "1.0"], ["1.0", "0.0"], ("0.0", "1.0"), 2),
    "a class that only the test has": ([1, 2, 0], [0, 2], None, 3),
    "no row of class 0 in training": ([1, 2, 1], [0, 2], None, 3),
    "names that are numbers from 1 on": (["1", "2"], ["2", "1"], ("1", "2"), 2),
    "names like a missing value": (["NA", "none"], ["none", "NA"], ("NA", "none"), 2),
    "booleans": ([True, False], [False, True], None, 2),
    "a row of each class": (list(range(40)), list(range(40)), None, 40),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_labels_that_look_odd_and_are_right_are_read(name):
    """Prevents a refusal of what works: the checks look for one cause each."""
    train, test, labels, count = ACCEPTED[name]
    data = load(train, test)
    assert (data.labels, data.num_labels) == (labels, count)


def test_a_column_of_classes_with_names_may_lack_the_first():
    """Prevents a refusal of rows whose owner has said which classes there are."""
    part = rows([1, 2, 1]).cast_column("label", ClassLabel(names=["a", "b", "c"]))
    assert load_task(DatasetDict(train=part, test=part), TOKENIZER, CLASSES).num_labels == 3


def test_the_advice_for_a_hidden_test_split_works():
    """Prevents a remedy that nobody tried."""
    splits = DatasetDict(train=rows([0, 1]), test=rows([-1, -1]), validation=rows([1, 0]))
    assert list(load_task(splits, TOKENIZER, CLASSES, evaluation_splits=["validation"]).split.evaluation) == [
        "validation"
    ]


def test_blank_texts_are_counted(caplog):
    """Prevents rows of nothing among the others, without a word."""
    caplog.set_level(logging.INFO, logger="distil_nlp")
    splits = DatasetDict(train=rows([0, 1, 1], ["the cat", " ", None]), test=rows([0, 1]))
    load_task(splits, TOKENIZER, CLASSES)
    assert "2 of 3 texts of train are blank" in caplog.text
    assert "test" not in caplog.text


def test_one_name_is_a_list_of_one(tmp_path):
    """Prevents a refusal of the plainest spelling of one column, or of one split."""
    overrides = ["data.text_columns=body", "data.evaluation_splits=validation"]
    recipe = load_recipe(*_command(tmp_path, *overrides))
    assert (recipe.data.text_columns, recipe.data.evaluation_splits) == (["body"], ["validation"])


@pytest.mark.parametrize("paths", ["[train.csv, test.csv]", "{train: train.csv, test: test.csv}"])
def test_several_files_are_taken(tmp_path, paths):
    """Prevents a guess: a folder of the two files worked, and nothing said so."""
    path = load_recipe(*_command(tmp_path, f"data.path={paths}")).data.path
    assert all_paths(path) == ["train.csv", "test.csv"]
    assert files_of_splits(path) == {"train": ["train.csv"], "test": ["test.csv"]}


def _command(folder, *overrides) -> tuple[str, list[str]]:
    path, *rest = Place(folder).command(*overrides)
    return path, rest
