"""Gains over baselines and the intervals around them."""

import numpy as np
import pytest

from distil_nlp.errors import UserError
from distil_nlp.evaluation import bootstrap
from distil_nlp.evaluation.bootstrap import paired_gain, score_interval
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs


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


def test_a_score_has_the_interval_of_a_proportion():
    """Prevents dots with the interval of a difference, or of another level."""
    right = np.arange(400) % 10 < 7
    found = score_interval("sst2", [classes(right)])
    deviation = np.sqrt(0.7 * 0.3 / 400)
    assert found["mean"] == pytest.approx(0.7)
    assert found["low"] == pytest.approx(0.7 - 1.96 * deviation, abs=0.006)
    assert found["high"] == pytest.approx(0.7 + 1.96 * deviation, abs=0.006)
    assert (found["level"], found["rows"], found["seeds"]) == (0.95, 400, 1)
    worse = score_interval("sst2", [classes(right), classes(np.arange(400) % 10 < 5)])
    assert worse["high"] - worse["low"] > 3 * (found["high"] - found["low"])


def test_few_seeds_are_not_too_sure():
    """Prevents "outside the noise" by resampling three seeds, whose interval covers the truth three times in four."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(40):
        chances = np.clip(generator.normal([[0.75], [0.72]], 0.03, size=(2, 3)), 0, 1)
        ours, theirs = ([classes(generator.random(500) < chance) for chance in kind] for kind in chances)
        gain = paired_gain("sst2", ours, theirs, resamples=500)
        covered += gain.low <= 0.03 <= gain.high
    assert covered >= 36


@pytest.mark.parametrize("of_seeds", [0.0, 0.03, 0.2], ids=["rows alone", "both", "seeds above all"])
@pytest.mark.parametrize("seeds", [2, 3])
def test_the_interval_covers_what_it_says(seeds, of_seeds):
    """Prevents noise of the rows that is counted again as that of the seeds: an interval far wider than its level."""
    generator, rows, covered = np.random.default_rng(1), 100, []
    for _ in range(300):
        own = generator.normal(0, of_seeds, (seeds, 1)) + generator.normal(0, 0.3, (seeds, rows))
        scores = own + generator.normal(0, 0.3, rows)
        _, low, high = bootstrap._interval(lambda counts, s=scores: counts @ s.T / rows, rows, 200, 0.95, 0)
        covered.append(low <= 0 <= high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_a_gain_that_is_no_number_is_not_significant():
    """Prevents the smallest p-value that there is for a student whose outputs are NaN."""
    good = classes(np.arange(20) < 10)
    bad = [np.array([[1.0, np.nan, 4.0]] * 10), np.array([[1.0, 2.0, 4.0]] * 10)]
    assert bootstrap.paired_p_value("mlm", *([Outputs(block, np.zeros(10))] for block in bad)) == 1
    assert bootstrap.paired_p_value("sst2", [good], [good]) == 1


def test_other_rows_are_not_compared():
    """Prevents a gain between students that were scored on unlike rows, such as data that changed in between."""
    here = classes(np.arange(20) < 10)
    there = Outputs(here.predictions, 1 - here.labels)
    with pytest.raises(UserError, match="expected the same evaluation rows"):
        paired_gain("sst2", [here], [there])


def test_one_copy_is_compared_with_every_seed():
    """Prevents a gain over the initialised student that takes the first seed only."""
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
    ours, theirs = (metrics_of(task, {"test": one})[headline_metric(task)] for one in outputs)
    assert paired_gain(task, [outputs[0]], [outputs[1]], resamples=100).mean == pytest.approx(ours - theirs)


def test_blocks_of_text_are_resampled_whole():
    """Prevents an interval that takes the tokens of a block for independent."""
    blocks = [np.array([[1.0, right, 4.0]] * 10) for right in (2.0, 1.0)]
    gain = paired_gain("mlm", *([Outputs(block, np.zeros(10))] for block in blocks))
    assert (gain.mean, gain.low, gain.high, gain.rows) == (0.25, 0.25, 0.25, 10)
