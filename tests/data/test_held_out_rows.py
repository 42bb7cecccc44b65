"""Rows of a single file that are kept for scoring."""

import dataclasses
from collections import Counter

import pytest
from datasets import Dataset

from distil_nlp.data.held_out_rows import hold_out_rows
from distil_nlp.errors import UserError
from distil_nlp.tasks import CUSTOM_TASKS

CLASSES = dataclasses.replace(CUSTOM_TASKS["classification"], text_columns=("text",), label_column="label")
NUMBERS = dataclasses.replace(CUSTOM_TASKS["regression"], text_columns=("text",), label_column="label")


def rows(count=200):
    labels = ["a"] * (count // 2) + ["b"] * (count // 4) + ["c"] * (count - count // 2 - count // 4)
    return Dataset.from_dict({"text": [f"text {i}" for i in range(count)], "label": labels})


def test_each_class_gives_its_share():
    """Prevents a rare class that is never scored, or never learnt."""
    trained, scored = hold_out_rows(rows(), CLASSES, 0.2)
    assert Counter(scored["label"]) == {"a": 20, "b": 10, "c": 10}
    assert Counter(trained["label"]) == {"a": 80, "b": 40, "c": 40}


def test_equal_texts_stay_together():
    """Prevents scores on texts that were learnt; spaces around a text do not make another one."""
    texts = [f"text {i % 30}" + " " * (i % 3) for i in range(300)]
    table = Dataset.from_dict({"text": texts, "label": ["ab"[i % 30 % 2] for i in range(300)]})
    trained, scored = hold_out_rows(table, CLASSES, 0.2)
    assert len(trained) + len(scored) == 300
    assert not {text.strip() for text in trained["text"]} & {text.strip() for text in scored["text"]}


def test_a_row_stays_on_its_side_whatever_the_order_and_what_is_added():
    """Prevents scores of other rows after the file was sorted or grew a little."""
    table = rows()
    _, scored = hold_out_rows(table, CLASSES, 0.2)
    _, shuffled = hold_out_rows(table.shuffle(seed=1), CLASSES, 0.2)
    assert set(scored["text"]) == set(shuffled["text"])
    more = Dataset.from_dict({"text": [*table["text"], "new 1", "new 2"], "label": [*table["label"], "a", "a"]})
    _, grown = hold_out_rows(more, CLASSES, 0.2)
    assert len(set(scored["text"]) & set(grown["text"])) >= len(scored) - 1


def test_rows_without_a_label_are_trained_on():
    """Prevents a score on rows without a label, and the loss of rows for the teacher to label."""
    table = Dataset.from_dict({"text": [f"text {i}" for i in range(40)], "label": ["a", "b", None, None] * 10})
    trained, scored = hold_out_rows(table, CLASSES, 0.2)
    assert None not in scored["label"]
    assert Counter(trained["label"])[None] == 20


def test_a_class_of_one_text_is_learnt():
    """Prevents a class in the scores that training does not know."""
    table = Dataset.from_dict({"text": ["x", *[f"text {i}" for i in range(20)]], "label": ["rare", *["a", "b"] * 10]})
    trained, scored = hold_out_rows(table, CLASSES, 0.2)
    assert "rare" in trained["label"]
    assert "rare" not in scored["label"]


def test_numbers_are_not_classes():
    """Prevents one row of each number."""
    table = Dataset.from_dict({"text": [f"text {i}" for i in range(100)], "label": [i / 7 for i in range(100)]})
    assert [len(part) for part in hold_out_rows(table, NUMBERS, 0.1)] == [90, 10]


@pytest.mark.parametrize("texts", [["x"], ["x", "x"], ["x", "y"]], ids=str)
def test_too_few_rows_are_refused(texts):
    """Prevents an empty split."""
    with pytest.raises(UserError, match=r"two different labelled texts .* data.evaluation_splits"):
        hold_out_rows(Dataset.from_dict({"text": texts, "label": ["a", "b"][: len(texts)]}), CLASSES, 0.2)
