"""Scores by class and by length, and the rows that only one of the models has right."""

import numpy as np
import pytest
from sklearn.metrics import classification_report

from distil_nlp.evaluation.breakdown import breakdown
from distil_nlp.evaluation.predict import Outputs

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, -100])
TEACHER = np.array([0, 0, 1, 1, 1, 2, 2, 0, 0])
STUDENT = np.array([0, 1, 0, 1, 0, 2, 2, 0, 0])


def classes(predicted):
    return Outputs(np.eye(3)[predicted] * 4, LABELS)


def classification(lengths, names=("a", "b", "c")):
    return breakdown("classification", classes(TEACHER), classes(STUDENT), lengths, names)


def test_classes_are_scored_as_scikit_learn_does():
    """Prevents precision in the place of recall, and rows without a label that count."""
    found = classification(range(9))["classes"]
    known = LABELS != -100
    for role, predicted in (("teacher", TEACHER), ("student", STUDENT)):
        expected = classification_report(
            LABELS[known], predicted[known], target_names=["a", "b", "c"], output_dict=True, zero_division=0
        )
        for one in found:
            theirs = expected[one["name"]]
            ours = [one[role]["precision"], one[role]["recall"], one[role]["f1"], one["rows"]]
            assert ours == pytest.approx([theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"]])
    assert [one["name"] for one in classification(range(9), None)["classes"]] == ["0", "1", "2"]


def test_rows_are_lost_or_won():
    """Prevents a loss that counts as a gain."""
    assert classification(range(9))["changes"] == {"both_right": 4, "lost": 2, "won": 1, "both_wrong": 1}


def test_quarters_are_of_labelled_rows_and_whole_lengths():
    """Prevents rows of one length in two slices, empty slices, and the error of rows without a label."""
    found = classification([5, 5, 5, 5, 5, 9, 9, 12, 500])["lengths"]
    assert [(part["shortest"], part["longest"], part["rows"]) for part in found] == [(5, 5, 5), (9, 9, 2), (12, 12, 1)]
    assert [part["teacher"] for part in found] == pytest.approx([0.2, 0, 1])
    assert [part["student"] for part in found] == pytest.approx([0.4, 0, 1])
    assert sum(part["rows"] for part in classification(np.arange(9))["lengths"]) == 8


def test_numbers_have_distances():
    """Prevents regression that is scored as classes."""
    labels = np.array([1.0, 2.0, 3.0, np.nan])
    teacher, student = (Outputs(np.array(values)[:, None], labels) for values in ([1, 2, 4, 9], [0, 2, 3, 9]))
    found = breakdown("regression", teacher, student, [3, 3, 3, 7], None)
    third = pytest.approx(1 / 3)
    assert found == {"lengths": [{"shortest": 3, "longest": 3, "rows": 3, "teacher": third, "student": third}]}


def test_masked_tokens_have_none():
    """Prevents sums of blocks of text that are read as classes."""
    blocks = Outputs(np.ones((4, 3)), np.zeros(4))
    assert breakdown("mlm", blocks, blocks, [], None) == {}
