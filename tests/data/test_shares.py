"""A share of the training rows: nested, stratified, the same for each seed of a student."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from distil_nlp.data import sequences
from distil_nlp.data.shares import keep_share, share_order
from distil_nlp.tasks import CUSTOM_TASKS
from tests.helpers import tiny
from tests.helpers.runs import Place

LABELS = ["a"] * 700 + ["b"] * 290 + ["c"] * 10


def kept(share, seed=0):
    rows = Dataset.from_dict({"row": range(1000)})
    return keep_share(rows, share, LABELS, seed)["row"][:]


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.3, 1.0])
def test_labels_keep_their_proportion(share):
    """Prevents few labels that are all of one class, as files are often sorted."""
    rows = kept(share)
    assert len(rows) == round(1000 * share)
    counts = Counter(LABELS[row] for row in rows)
    for label, count in Counter(LABELS).items():
        assert abs(counts[label] - share * count) <= 1


def test_a_larger_share_has_all_rows_of_a_smaller_one():
    """Prevents a learning curve whose points differ in their rows, besides how many they are."""
    shares = [set(kept(share)) for share in (0.01, 0.03, 0.1, 0.3, 1.0)]
    assert all(small < large for small, large in pairwise(shares))
    assert kept(0.1) == sorted(kept(0.1))
    assert kept(0.1) != kept(0.1, seed=1)
    assert sorted(share_order(LABELS, 0)) == list(range(1000))
    assert len(kept(1e-9)) == 1


def test_a_run_learns_from_its_share_alone(tmp_path):
    """Prevents a share that changes the rows that are scored, or is taken of nothing."""
    place = Place(tmp_path).prepare()
    assert place.run("training.max_steps=1", "data.share=0.5", "run.report=false") == 0
    assert place.results["rows"]["train"] == 12
    assert place.results["rows"]["evaluation"] == {"test": 9}
    assert not (place.out / "report").exists()
    assert np.isfinite(place.results["training"]["seconds"])


def labels_of(rows, share, name="classification"):
    """The encoded labels of a task's training rows, of which a share is kept."""
    splits = DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows))
    task = replace(CUSTOM_TASKS[name], labels=()) if name == "regression" else CUSTOM_TASKS[name]
    data = sequences.load_task(splits, tiny.tokenizer(), task, labelled_share=share)
    return np.array(data.split.train["labels"][:]), data.split.evaluation["test"]


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_some_labels_are_kept_and_all_rows(name):
    """Prevents rows that go with their labels, labels of one class alone, and scores on rows without any."""
    numbers = [0, 1, 1, 1] * 25
    rows = {"text": tiny.SENTENCES[:4] * 25, "label": numbers if name == "classification" else [*map(float, numbers)]}
    known, scored = {}, None
    for share in (0.04, 0.2, 1):
        labels, scored = labels_of(rows, share, name)
        assert len(labels) == 100
        known[share] = np.flatnonzero(sequences.has_label(labels))
        assert len(known[share]) == round(100 * share)
        assert labels[known[share]].tolist() == [numbers[row] for row in known[share]]
        assert sequences.has_label(scored["labels"][:]).all()
    assert {*known[0.04]} < {*known[0.2]} < {*known[1]}
    if name == "classification":
        assert [numbers[row] for row in known[0.2]].count(0) == 5


def test_labels_that_are_missing_already_are_not_counted(tmp_path):
    """Prevents a share of which half are rows that never had a label."""
    rows = {"text": tiny.SENTENCES[:4] * 25, "label": [0, 1, -100, -100] * 25}
    splits = DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows).filter(lambda r: r["label"] >= 0))
    data = sequences.load_task(splits, tiny.tokenizer(), CUSTOM_TASKS["classification"], labelled_share=0.2)
    assert sequences.has_label(data.split.train["labels"][:]).sum() == 10


@pytest.mark.integration
def test_the_teacher_learns_from_the_labels_that_are_left(tmp_path):
    """Prevents few labels for the student from a teacher that had them all."""
    place = Place(tmp_path).prepare()
    options = ["training.max_steps=2", "data.labelled_share=0.25", "teacher.finetune={max_steps: 2}"]
    assert place.run(*options, "evaluation.baselines=[no_distillation]", "run.report=false") == 0
    assert place.results["rows"]["train"] == 24
    assert place.results["rows"]["labelled"] == 6
