"""Statistics of a study, against their definitions."""

import numpy as np
import pytest

from distil_nlp.evaluation.bootstrap import paired_gain, paired_p_value
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.study.statistics import equivalent_rows, holm, interquartile_mean


def test_holms_correction():
    """Prevents one of twenty methods that wins by chance. Values: R's p.adjust(p, "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_holm_keeps_the_error_of_the_family():
    """Prevents a correction that does not correct: of 500 families of 20 true nulls about 5 % have a rejection."""
    p_values = np.random.default_rng(0).uniform(size=(500, 20))
    wrong = np.mean([min(holm(family)) < 0.05 for family in p_values])
    assert 0.02 < wrong < 0.08
    assert np.mean(p_values.min(1) < 0.05) > 0.5, "without it"


def outputs(wrong, rows=200):
    labels = np.arange(rows) % 2
    return Outputs(np.eye(2)[np.where(np.arange(rows) < wrong, 1 - labels, labels)], labels)


@pytest.mark.parametrize("wrong", [20, 28, 32, 40, 60])
def test_a_p_value_is_below_5_percent_where_the_interval_excludes_0(wrong):
    """Prevents a table whose intervals and p-values contradict each other."""
    pairs = [outputs(20)], [outputs(wrong)]
    gain, p_value = paired_gain("classification", *pairs), paired_p_value("classification", *pairs)
    assert (p_value < 0.05) == gain.to_dict()["outside_noise"]
    if wrong == 20:
        assert p_value == 1.0


def test_the_interquartile_mean():
    """Prevents a mean over tasks that one of them decides."""
    mean, low, high = interquartile_mean([[0.9, 0.92, 0.94], [0.95, 0.96, 0.97], [0.0, 0.98, 0.99], [0.9, 0.9, 0.9]])
    assert mean == pytest.approx(np.mean([0.9, 0.92, 0.94, 0.95, 0.96, 0.9]), abs=0.02)
    assert low <= mean <= high
    assert interquartile_mean([[0.5], [0.7]])[1:] == (0.6, 0.6)


def test_the_interval_over_tasks_is_not_far_too_narrow():
    """Prevents seeds that are drawn from so few that they hardly differ."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(200):
        _, low, high = interquartile_mean(generator.normal(0, 1, (3, 3)), resamples=300)
        covered += low <= 0 <= high
    assert 180 <= covered <= 198


def test_the_worth_of_distilling_in_labels():
    """Prevents a number of labels outside the curve, or one that is read off where the curve falls by chance."""
    assert equivalent_rows(0.75, [100, 1000], [0.7, 0.8]) == pytest.approx(10**2.5)
    assert equivalent_rows(0.9, [100, 1000], [0.7, 0.8]) is None
    assert equivalent_rows(0.6, [100, 1000], [0.7, 0.8]) == 100
    assert equivalent_rows(0.78, [10, 100, 1000, 10000], [0.7, 0.8, 0.75, 0.9]) == pytest.approx(10**1.8)
