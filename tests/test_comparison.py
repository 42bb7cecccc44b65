"""Gains over baselines and the intervals around them."""

import numpy as np
import pytest

from distil_nlp.comparison import paired_gain
from distil_nlp.evaluation import Outputs, headline, metrics_of


def classes(right: np.ndarray) -> Outputs:
    """A two-class model that is right on some rows; all labels are 1."""
    return Outputs(np.stack([~right, right], axis=1).astype(float), np.ones(len(right), dtype=int))


def test_the_interval_is_that_of_a_paired_difference():
    """Prevents an unpaired interval, which is much wider where both are right on mostly the same rows."""
    theirs = np.arange(400) % 10 < 7
    ours = theirs | (np.arange(400) % 40 == 8)  # 10 rows more
    gain = paired_gain("sst2", [classes(ours)], [classes(theirs)])
    assert gain.mean == pytest.approx(10 / 400)
    deviation = np.std((ours * 1.0) - theirs) / np.sqrt(400)
    assert gain.low == pytest.approx(0.025 - 1.96 * deviation, abs=0.004)
    assert gain.high == pytest.approx(0.025 + 1.96 * deviation, abs=0.004)
    assert gain.to_dict()["outside_noise"]


def test_no_difference_is_within_the_noise():
    """Prevents a verdict that is always positive."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.permuted(np.tile(np.arange(300) < 240, (2, 1)), axis=1)
    gain = paired_gain("sst2", [classes(ours)], [classes(theirs)]).to_dict()
    assert gain["low"] < 0 < gain["high"]
    assert not gain["outside_noise"]


def test_unlike_seeds_widen_the_interval():
    """Prevents an interval that knows of rows only, when one seed in three did well by luck."""
    rows = np.arange(2000)
    theirs = [classes(rows % 10 < 7)] * 3
    steady = [classes((rows % 10 < 7) | (rows % 50 == 9))] * 3
    lucky = [theirs[0], theirs[0], classes((rows % 10 < 7) | (rows % 50 > 46))]
    narrow, wide = (paired_gain("sst2", ours, theirs) for ours in (steady, lucky))
    assert narrow.mean == pytest.approx(wide.mean) == pytest.approx(0.02)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert wide.low < 0.002 < narrow.low


def test_one_copy_is_compared_with_every_seed():
    """Prevents a gain over the untrained copy that takes the first seed only."""
    rows = np.arange(100)
    gain = paired_gain("sst2", [classes(rows < 80), classes(rows < 60)], [classes(rows < 50)])
    assert gain.mean == pytest.approx(0.2)
    assert gain.seeds == 2


@pytest.mark.parametrize("task", ["sst2", "mrpc", "cola", "stsb"])
def test_the_metric_is_the_official_one(task):
    """Prevents a gain on another metric than the scores, or on a wrong formula."""
    generator, regression = np.random.default_rng(0), task == "stsb"
    labels = generator.random(80) * 5 if regression else generator.integers(0, 2, 80)
    outputs = [Outputs(generator.normal(size=(80, 1 if regression else 2)), labels) for _ in range(2)]
    ours, theirs = (metrics_of(task, {"test": one})[headline(task)] for one in outputs)
    assert paired_gain(task, [outputs[0]], [outputs[1]], resamples=100).mean == pytest.approx(ours - theirs)


def test_blocks_of_text_are_resampled_whole():
    """Prevents an interval that takes the tokens of a block for independent."""
    blocks = [np.array([[1.0, right, 4.0]] * 10) for right in (2.0, 1.0)]
    gain = paired_gain("mlm", *([Outputs(block, np.zeros(10))] for block in blocks))
    assert (gain.mean, gain.low, gain.high, gain.rows) == (0.25, 0.25, 0.25, 10)
