"""Scores of several labels a row: metrics, thresholds, the baseline without a model, intervals and agreement."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, f1_score
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import paired_gain, score_interval
from distil_nlp.evaluation.breakdown import breakdown
from distil_nlp.evaluation.fidelity import compare_models
from distil_nlp.evaluation.mean_outputs import mean_outputs
from distil_nlp.evaluation.metrics import metrics_of, retention
from distil_nlp.evaluation.multilabel import EVALUATOR, best_threshold
from distil_nlp.evaluation.predict import Outputs, predict
from distil_nlp.pipeline.kept_outputs import load_outputs, save_outputs
from distil_nlp.tasks import KINDS
from tests.helpers import tiny, training
from tests.losses.test_losses import naive_bernoulli_kl

PROBABILITIES = np.array([[0.9, 0.2, 0.6], [0.4, 0.7, 0.1], [0.8, 0.3, 0.2], [0.1, 0.45, 0.3]])
LABELS = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)


def outputs(probabilities=PROBABILITIES, labels=LABELS, threshold=0.5):
    return Outputs(logit(np.asarray(probabilities)), np.asarray(labels), threshold)


def drawn(rows=60, classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((rows, classes)) < [0.5, 0.3, 0.1, 0.05]).astype(np.float32)
    return Outputs(generator.normal(size=(rows, classes)) + labels, labels)


def test_metrics_are_those_of_a_fixed_example():
    """Prevents another mean, threshold or treatment of a label that no row has: counted by hand."""
    found = metrics_of("multilabel", {"test": outputs()})
    assert found["f1_micro"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))  # 3 right, 1 wrong, 2 missed
    assert found["f1_macro"] == pytest.approx((2 * 2 / (2 * 2 + 0 + 1) + 2 * 1 / (2 * 1 + 0 + 1) + 0) / 3)
    assert found["mean_average_precision"] == 1  # of the two labels that occur, all rows with it come first
    lower = metrics_of("multilabel", {"test": outputs(threshold=0.4)})
    assert lower["f1_micro"] == pytest.approx(2 * 5 / (2 * 5 + 1 + 0))
    assert lower["mean_average_precision"] == found["mean_average_precision"]


def test_rows_without_labels_are_not_scored():
    """Prevents NaN that counts as a label, or as none."""
    more = outputs(np.vstack([PROBABILITIES, [[0.9, 0.9, 0.9]]]), np.vstack([LABELS, [[np.nan] * 3]]))
    assert metrics_of("multilabel", {"test": more}) == metrics_of("multilabel", {"test": outputs()})
    assert EVALUATOR.class_scores(more) == EVALUATOR.class_scores(outputs())
    assert math.isnan(EVALUATOR.row_scores(more).errors[-1])
    assert score_interval("multilabel", [more], resamples=100)["mean"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_the_best_of_all(seed):
    """Prevents a threshold of a coarse grid, and one just above the probability that it is of."""
    rows = drawn(seed=seed)
    probabilities = expit(rows.predictions)
    scores = {
        float(p): f1_score(rows.labels, probabilities >= p, average="micro", zero_division=0)
        for p in [*probabilities.ravel(), 0.5]
    }
    chosen = best_threshold(rows.predictions, rows.labels)
    assert f1_score(rows.labels, probabilities >= chosen, average="micro") == pytest.approx(max(scores.values()))
    assert 0 < chosen < 1


def test_thresholds_are_chosen_on_other_rows_and_05_without_any():
    """Prevents scored rows that choose their own threshold."""
    scored, selection = drawn(seed=1), drawn(seed=2)
    chosen = EVALUATOR.with_threshold(scored, selection)
    assert chosen.threshold == best_threshold(selection.predictions, selection.labels)
    assert EVALUATOR.with_threshold(scored, None).threshold == 0.5
    unlabelled = Outputs(selection.predictions, np.full_like(selection.labels, np.nan))
    assert EVALUATOR.with_threshold(scored, unlabelled).threshold == 0.5
    assert EVALUATOR.with_threshold(scored, Outputs(selection.predictions, selection.labels * 0)).threshold == 0.5


def test_training_measures_at_the_threshold_that_is_best_on_the_rows_it_chooses_by():
    """Prevents a checkpoint that is chosen at 0.5, which a young model of rare labels never reaches."""
    rows = drawn()
    low = rows.predictions - 4
    found = EVALUATOR.trainer_metrics("multilabel")(EvalPrediction(low, rows.labels))
    assert found["f1_micro"] > 0.3
    assert found["f1_micro"] == pytest.approx(
        EVALUATOR.score("multilabel", EVALUATOR.with_threshold(rows, rows))["f1_micro"]
    )


def test_the_floor_is_the_best_constant_set():
    """Prevents a floor of 0 that any model passes: always `a` and `b`, whose F1 on the training rows is highest."""
    train = Dataset.from_dict({"labels": [[1.0, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [math.nan] * 3]})
    rows = Dataset.from_dict({"labels": [[1.0, 0, 0], [0, 1, 1]]})
    found = EVALUATOR.majority("multilabel", train, rows, None)
    assert found["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert found["mean_average_precision"] == pytest.approx(0.5)
    nothing = Dataset.from_dict({"labels": [[math.nan] * 3]})
    assert EVALUATOR.majority("multilabel", nothing, rows, None)["f1_micro"] >= 0


def test_the_interval_is_of_the_metric_that_is_reported():
    """Prevents a gain on another threshold or another F1 than the scores."""
    ours, theirs = (EVALUATOR.with_threshold(drawn(seed=seed), drawn(seed=9)) for seed in (0, 0))
    theirs = Outputs(theirs.predictions[::-1].copy(), theirs.labels, 0.4)
    scores = [metrics_of("multilabel", {"test": one})["f1_micro"] for one in (ours, theirs)]
    gain = paired_gain("multilabel", [ours], [theirs], resamples=200)
    assert gain.mean == pytest.approx(scores[0] - scores[1])
    assert gain.low < gain.mean < gain.high
    assert gain.rows == 60


def test_rows_and_classes_are_broken_down():
    """Prevents a row that counts as right with half of its labels, and rates of other classes."""
    found = breakdown("multilabel", outputs(), outputs(threshold=0.4), [4, 5, 6, 7], ("a", "b", "c"))
    assert found["changes"] == {"both_right": 1, "lost": 0, "won": 2, "both_wrong": 1}
    assert [one["rows"] for one in found["classes"]] == [3, 2, 0]
    assert found["classes"][0]["teacher"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8})
    scores = EVALUATOR.row_scores(outputs())
    assert scores.predictions.tolist() == [(0, 2), (1,), (0,), ()]
    assert scores.probabilities[0] == pytest.approx(0.9 * 0.8 * 0.6)
    assert EVALUATOR.row_labels(outputs(), None).tolist() == [(0,), (0, 1), (0,), (1,)]


def test_average_precision_is_that_of_scikit_learn():
    """Prevents a formula of one's own."""
    rows = drawn(200, seed=3)
    assert rows.labels.any(0).all()
    expected = average_precision_score(rows.labels, rows.predictions, average="macro")
    assert metrics_of("multilabel", {"test": rows})["mean_average_precision"] == pytest.approx(expected)


def test_the_mean_of_models_is_that_of_probabilities():
    """Prevents a softmax over labels that do not exclude each other."""
    models = [{"test": outputs(threshold=0.4)}, {"test": outputs(PROBABILITIES[::-1], threshold=0.6)}]
    mean = mean_outputs(models, KINDS["multilabel"])["test"]
    np.testing.assert_allclose(expit(mean.predictions), (PROBABILITIES + PROBABILITIES[::-1]) / 2)
    assert mean.threshold == pytest.approx(0.5)


def test_kept_outputs_have_their_threshold(tmp_path):
    """Prevents a study that scores kept outputs at another threshold than the run did."""
    save_outputs(tmp_path / "a.npz", {"test": outputs(threshold=0.37)})
    assert load_outputs(tmp_path / "a.npz")["test"].threshold == 0.37
    save_outputs(tmp_path / "b.npz", {"test": Outputs(np.zeros((2, 2)), np.zeros(2))})
    assert load_outputs(tmp_path / "b.npz")["test"].threshold is None


def test_agreement_is_of_whole_sets_and_the_kl_of_all_labels():
    """Prevents an agreement of likeliest labels, and a KL of a softmax: computed row by row in float64."""
    rows = [row | {"labels": training.label_set(i, 2)} for i, row in enumerate(training.task_rows(24))]
    both = [tiny.classifier(n, 2, seed=n, initializer_range=0.1) for n in (3, 2)]
    collator = training.TaskCollator(tiny.tokenizer(), "multilabel")
    scored = [predict(model, "multilabel", {"all": rows}, collator)["all"] for model in both]
    found = compare_models(*both, "multilabel", rows, collator, outputs=tuple(scored))
    logits = [torch.from_numpy(one.predictions).double() for one in scored]
    assert found["agreement"] == pytest.approx(float(((logits[0] >= 0) == (logits[1] >= 0)).all(1).float().mean()))
    assert found["kl"] == pytest.approx(float(naive_bernoulli_kl(logits[1], logits[0], 1.0)) / 24)
    assert EVALUATOR.fidelity_of(outputs(), outputs(threshold=0.4))["agreement"] == 0.5
    again = compare_models(*both, "multilabel", rows, collator)
    assert again["kl"] == pytest.approx(found["kl"], rel=1e-4)
    assert compare_models(both[0], both[0], "multilabel", rows, collator)["agreement"] == 1


def test_retention_is_that_of_micro_f1():
    """Prevents a headline that the task does not have."""
    assert retention({"f1_micro": 0.4}, {"f1_micro": 0.5}, "multilabel") == pytest.approx(0.8)


def test_calibration_is_of_each_label_by_itself():
    """Prevents the confidence of a set of labels in place of the labels' own, and rows without labels that count."""
    some = drawn()
    some.labels[:7] = math.nan
    logits, truth = some.predictions[7:].ravel(), some.labels[7:].ravel()
    found = {name: value(features(some).sum(0)[None])[0] for name, (features, value) in EVALUATOR.calibration().items()}
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(*map(torch.from_numpy, (logits, truth.astype(float))))
    assert found["nll"] == pytest.approx(wanted.item())
    bins, chance = np.ceil(expit(logits) * 15), expit(logits)
    gaps = [abs(truth[bins == b].sum() - chance[bins == b].sum()) for b in range(1, 16)]
    assert found["ece"] == pytest.approx(sum(gaps) / len(truth))
    sure = Outputs(np.where(some.labels == 1, 40.0, -40.0), some.labels)
    assert all(value(features(sure).sum(0)[None])[0] < 1e-9 for features, value in EVALUATOR.calibration().values())
