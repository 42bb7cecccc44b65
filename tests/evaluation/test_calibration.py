"""Calibration of all models of a run: measures as sums over rows, means over seeds, paired intervals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distil_nlp.evaluation.bootstrap import paired_difference
from distil_nlp.evaluation.fidelity import expected_calibration_error
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.plan import DISTILLED, NO_DISTILLATION
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.students import TrainedStudent

MEASURES = evaluator_of("classification").calibration()


def outputs(seed=0, rows=300, sharpness=1.0, unlabelled=0):
    """Logits of three classes, calibrated at sharpness 1: the log odds that Gaussian noise around the label leaves."""
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(3, size=rows)
    logits = sharpness * 1.5 * (generator.normal(size=(rows, 3)) + 1.5 * np.eye(3)[labels])
    labels[:unlabelled] = -100
    return Outputs(logits.astype(np.float32), labels)


def value(name, one):
    features, measure = MEASURES[name]
    return measure(features(one).sum(0, keepdims=True)).item()


def run_scores(task="sst2", **changes):
    def student(*seeds):
        return {seed: TrainedStudent({}, {"validation": outputs(seed, **changes)}, {}) for seed in seeds}

    teacher = {42: {"validation": outputs(1, sharpness=2.0, **changes)}}
    students = {DISTILLED: student(2, 3), NO_DISTILLATION: student(4, 5)}
    return RunScores(task, {}, teacher, copied={"validation": outputs(6, **changes)}, students=students)


def test_the_sums_are_those_of_the_measures_on_labelled_rows():
    """Prevents rows without a label that count, and a bootstrap of another measure than is shown."""
    some = outputs(unlabelled=40)
    logits, labels = torch.from_numpy(some.predictions[40:]).double(), torch.from_numpy(some.labels[40:])
    assert value("nll", some) == pytest.approx(F.cross_entropy(logits, labels).item())
    assert value("ece", some) == pytest.approx(expected_calibration_error(logits.softmax(-1).numpy(), labels.numpy()))
    assert value("ece", outputs(sharpness=4.0)) > 2 * value("ece", outputs())


def test_the_interval_is_that_of_the_mean_difference():
    """Prevents an unpaired interval, and one that covers nothing."""
    ours, theirs = outputs(0), outputs(0, sharpness=1.2)
    mean, low, high = paired_difference(MEASURES["nll"], [ours], [theirs])
    losses = [
        F.cross_entropy(torch.from_numpy(one.predictions).double(), torch.from_numpy(one.labels), reduction="none")
        for one in (ours, theirs)
    ]
    differences = (losses[0] - losses[1]).numpy()
    deviation = differences.std() / np.sqrt(len(differences))
    assert mean == pytest.approx(differences.mean())
    assert (low, high) == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation), abs=0.3 * deviation)


def test_every_model_has_its_means_and_two_have_differences():
    """Prevents the first seed for all of them, and differences of the wrong sign."""
    found = run_scores().calibration()["calibration"]
    assert set(found) == {"teacher", "student", "copied_only", NO_DISTILLATION}
    for name in MEASURES:
        student = np.mean([value(name, outputs(seed)) for seed in (2, 3)])
        teacher = value(name, outputs(1, sharpness=2.0))
        assert found["student"][name] == pytest.approx(student)
        assert found["teacher"][name] == pytest.approx(teacher)
        difference = found["teacher"]["difference"][name]
        assert difference["mean"] == pytest.approx(student - teacher)
        assert difference["low"] < difference["mean"] < difference["high"]
        labels_only = np.mean([value(name, outputs(seed)) for seed in (4, 5)])
        assert found[NO_DISTILLATION]["difference"][name]["mean"] == pytest.approx(student - labels_only)
    assert "difference" not in found["student"]


def test_there_is_none_without_classes_or_labels():
    """Prevents a calibration of numbers, and a division by no rows."""
    assert run_scores("stsb").calibration() == {}
    assert run_scores(unlabelled=300).calibration() == {}
