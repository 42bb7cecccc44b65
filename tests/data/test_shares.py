"""A share of the training rows: nested, stratified, the same for each seed of a student."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset

from distil_nlp.data.shares import keep_share, share_order
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
