"""Metrics and what a score is compared with."""

import math
import socket

import evaluate
import numpy as np
import pytest
import sklearn.metrics
import torch
from datasets import Dataset
from scipy import stats
from transformers import EvalPrediction

from distil_nlp.data import MaskingCollator, TaskCollator
from distil_nlp.evaluation.glue_metric import METRICS_OF_TASKS
from distil_nlp.evaluation.kinds import task_evaluator
from distil_nlp.evaluation.masked_lm import unigram_metrics
from distil_nlp.evaluation.metrics import (
    GLUE_METRIC,
    headline_metric,
    retention,
    retention_above_majority,
)
from distil_nlp.evaluation.predict import predict
from distil_nlp.tasks import CUSTOM_TASKS, GLUE
from tests.helpers import tiny, training

EXPECTED = {
    "accuracy": lambda p, r: np.mean(p == r),
    "f1": lambda p, r: 2 * np.sum(p * r) / (np.sum(p) + np.sum(r)),
    "f1_macro": lambda p, r: np.mean(
        [2 * np.sum((p == c) & (r == c)) / (np.sum(p == c) + np.sum(r == c)) for c in set(p) | set(r)]
    ),
    "matthews_correlation": lambda p, r: np.corrcoef(p, r)[0, 1],
    "pearson": lambda p, r: np.corrcoef(p, r)[0, 1],
    "spearmanr": lambda p, r: np.corrcoef(stats.rankdata(p), stats.rankdata(r))[0, 1],
    "mse": lambda p, r: sklearn.metrics.mean_squared_error(r, p),
}
METRICS = {
    "cola": {"matthews_correlation"},
    "sst2": {"accuracy"},
    "mrpc": {"accuracy", "f1"},
    "qqp": {"accuracy", "f1"},
    "stsb": {"pearson", "spearmanr"},
    "mnli": {"accuracy"},
    "qnli": {"accuracy"},
    "rte": {"accuracy"},
    "wnli": {"accuracy"},
    "classification": {"accuracy", "f1_macro"},
    "regression": {"pearson", "spearmanr", "mse"},
}
TASKS = {name: task for name, task in (GLUE | CUSTOM_TASKS).items() if name in METRICS_OF_TASKS}


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"a metric went to the network: {args}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def labels(task: str, seed: int, size: int = 200) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if TASKS[task].kind.output == "number":
        return np.round(5 * generator.random(size), 1).astype(np.float32)
    return generator.integers(0, 3 if task in ("mnli", "classification") else 2, size)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_official_metrics(task, offline):
    """`evaluate.load("glue")` downloads its script and fails offline; swapped sides would hide in symmetric scores."""
    predictions, references = labels(task, 1), labels(task, 2)
    references = np.where(np.arange(200) % 3 == 0, predictions, references)
    found = evaluate.load(GLUE_METRIC, task).compute(predictions=predictions, references=references)
    exact = [array.astype(np.float64) for array in (predictions, references)]
    assert found == pytest.approx({name: float(EXPECTED[name](*exact)) for name in METRICS[task]}, abs=1e-6)
    assert headline_metric(task) in found
    assert all(type(value) is float for value in found.values()), "JSON takes no numpy numbers"


def test_f1_is_that_of_class_one():
    """F1 of the other class, or weighted, is another number on MRPC."""
    found = evaluate.load(GLUE_METRIC, "mrpc").compute(predictions=[1, 1, 0, 0, 1], references=[1, 0, 0, 0, 1])
    assert found == pytest.approx({"accuracy": 0.8, "f1": 0.8})
    assert evaluate.load(GLUE_METRIC, "mrpc").compute(predictions=[0, 0], references=[1, 1])["f1"] == 0


def test_an_unknown_task_is_an_error():
    """The message names the tasks there are."""
    with pytest.raises(KeyError, match=r"expected one of cola, .* / got mprc"):
        evaluate.load(GLUE_METRIC, "mprc")


@pytest.mark.parametrize(("predictions", "references"), [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [3.0, 3.0])])
def test_the_correlation_of_a_constant_is_nan(predictions, references):
    """0 would look like a score, and a warning from scipy like nothing."""
    found = evaluate.load(GLUE_METRIC, "stsb").compute(predictions=predictions, references=references)
    assert all(math.isnan(value) for value in found.values())


def test_metric_function_takes_logits():
    """Trainer hands over logits (rows, classes), or (rows, 1) for regression."""
    logits = np.array([[0.1, 2.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.1, 0.2], [0.0, 1.0, 0.0]])
    seen = EvalPrediction(predictions=logits, label_ids=np.array([1, 0, 0, 1]))
    assert task_evaluator("mnli").metrics("mnli")(seen) == {"accuracy": 0.75}
    seen = EvalPrediction(predictions=np.array([[1.0], [2.0], [3.0]]), label_ids=np.array([3.0, 2.0, 1.0]))
    assert task_evaluator("stsb").metrics("stsb")(seen) == pytest.approx({"pearson": -1, "spearmanr": -1})


def test_the_headline_of_language_modelling_is_accuracy():
    """Retention needs a metric where more is better."""
    assert headline_metric("mlm") == "accuracy"
    assert (headline_metric("cola"), headline_metric("mrpc"), headline_metric("stsb")) == (
        "matthews_correlation",
        "f1",
        "pearson",
    )


def majority_metrics(task, train_labels, references):
    return task_evaluator(task).majority_of_labels(task, train_labels, references)


# What a score is compared with ------------------------------------------------------------------------------

MRPC = [1] * 279 + [0] * 129


def test_guessing_gives_an_f1_of_0812_on_mrpc():
    """A student at 0.81 has learnt nothing, and 0.81 looks like a score."""
    found = majority_metrics("mrpc", [1, 1, 0, -100, -100, -100], MRPC)
    assert found == pytest.approx({"accuracy": 279 / 408, "f1": 2 * 279 / (2 * 279 + 129)})
    assert round(found["f1"], 3) == 0.812


def test_the_majority_is_that_of_training():
    """The majority class of the references is not known in training."""
    assert majority_metrics("mrpc", [0, 0, 1], MRPC) == pytest.approx({"accuracy": 129 / 408, "f1": 0})


def test_the_floor_of_a_regression_is_the_training_mean():
    """Unlabelled rows are NaN, and take no part in the mean."""
    found = majority_metrics("regression", [1.0, float("nan"), 3.0], [1.0, 2.0, 4.0])
    assert found["mse"] == pytest.approx((1 + 0 + 4) / 3)
    assert math.isnan(found["pearson"])


def test_unlabelled_training_rows_have_a_floor_too():
    """Distilling on unlabelled text must not fail at its end, when scores are taken."""
    found = majority_metrics("mrpc", [-100, -100], MRPC)
    assert set(found) == {"accuracy", "f1"}


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(0.45, 0.9, 0.5), (0.9, 0.9, 1.0), (0.3, 0.0, None), (0.3, -0.1, None), (0.3, math.nan, None), (-0.1, 0.5, -0.2)],
)
def test_retention_is_the_ratio_of_headlines(student, teacher, expected):
    """Two negative correlations would give a fine-looking ratio."""
    other = {"accuracy": 0.1}
    found = retention({"matthews_correlation": student, **other}, {"matthews_correlation": teacher, **other}, "cola")
    assert found == (None if expected is None else pytest.approx(expected))


def test_retention_without_the_headline_is_none():
    """A KeyError after hours of training would lose the results."""
    assert retention({}, {"f1": 0.9}, "mrpc") is None
    assert retention({"f1": 0.9}, {}, "mrpc") is None
    assert retention_above_majority({}, {"f1": 0.9}, {"f1": 0.8}, "mrpc") is None


@pytest.mark.parametrize(
    ("floor", "expected"),
    [({"f1": 0.8}, 0.5), ({}, 0.85 / 0.9), ({"f1": math.nan}, 0.85 / 0.9), ({"f1": 0.9}, None), ({"f1": 0.95}, None)],
)
def test_retention_above_majority_is_not_raised_by_guessing(floor, expected):
    """0.85 of 0.90 is 94 % of the F1 and half of what there was to learn."""
    found = retention_above_majority({"f1": 0.85}, {"f1": 0.9}, floor, "mrpc")
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_unigram_floor_is_the_entropy_of_masked_tokens():
    """A teacher near it is broken; a baseline that counts [SEP] would be too easy to beat."""
    tokenizer = tiny.tokenizer()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    train = [{"input_ids": [cls, 20, 20, 20, 21, sep, sep, sep, sep, sep, sep]}] * 10
    held_out = [{"input_ids": [cls, 20, 20, 20, sep]}, {"input_ids": [cls, 21, sep]}, {"input_ids": [cls, 22, sep]}]
    collator = MaskingCollator(tokenizer, probability=0.99)  # every ordinary token is masked
    found = unigram_metrics(train, held_out, collator)
    total = 40 + len(tokenizer) - len(tokenizer.all_special_ids)  # each token once more than it occurs
    loss = -(3 * math.log(31 / total) + math.log(11 / total) + math.log(1 / total)) / 5
    assert found == pytest.approx({"loss": loss, "perplexity": math.exp(loss), "accuracy": 0.6})


def test_outputs_of_processes_come_in_the_order_of_the_rows(monkeypatch):
    """Prevents rows that are paired with other rows' outputs, and a crash where a process had no row."""
    from distil_nlp.evaluation import predict as prediction

    def share(*rows):
        return [(np.array([[row]]), np.array([row])) for row in rows]

    monkeypatch.setattr(prediction, "gather_object", lambda own: [share(3, 2), share(1, 0), share(4)])
    seen = prediction._gather_in_order(share(3, 2), np.array([3, 1, 4, 2, 0]))
    assert seen.labels.tolist() == seen.predictions[:, 0].tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(prediction, "gather_object", lambda own: [share(0), []])
    assert prediction._gather_in_order(share(0), np.array([0])).labels.tolist() == [0]


def test_rows_of_like_length_share_a_batch():
    """Prevents short rows padded to the longest, and outputs that another order gives to other rows."""
    rows = Dataset.from_list([row | {"length": len(row["input_ids"])} for row in training.task_rows(10)])
    collator, widths = TaskCollator(tiny.tokenizer(), "classification"), []

    def collate(features):
        batch = collator(features)
        widths.append(batch["input_ids"].shape[1])
        return batch

    model = tiny.classifier(2)
    found = predict(model, "classification", {"rows": rows}, collate, batch_size=3)["rows"]
    assert widths == sorted(rows["length"], reverse=True)[::3]
    plain = predict(model, "classification", {"rows": rows.remove_columns("length")}, collate, batch_size=3)["rows"]
    assert found.labels.tolist() == plain.labels.tolist() == rows["labels"]
    np.testing.assert_allclose(found.predictions, plain.predictions, atol=1e-6)


def test_a_gpu_is_called_by_its_name(monkeypatch):
    """Prevents results of a GPU that are reported as a CPU's, or not at all."""
    from distil_nlp.utils.environment import device_name

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert device_name(torch.device("cuda", 0)) == "NVIDIA H200"
    assert "CPU" in device_name(torch.device("cpu"))
