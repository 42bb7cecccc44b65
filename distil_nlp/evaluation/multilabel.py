"""Scores of multi-label classification: F1 at a threshold, average precision, agreement of sets of labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_recall_fscore_support,
)
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import f1_of_sums, ratio_of_sums
from distil_nlp.evaluation.fidelity.outputs import calibration_error_of_sums, gaps_in_bins
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures, RowScores, rows_of_tuples
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.losses.soft_targets import soft_target_bernoulli_kl

DEFAULT_THRESHOLD = 0.5
"""Probability from which a row has a label, where no rows chose one."""
_METRICS = ["f1_micro", "f1_macro", "mean_average_precision"]


class MultilabelEvaluator(Evaluator):
    """Predictions are logits, (rows, classes); labels are 0 and 1, (rows, classes), NaN in rows without a label.

    A row has the labels whose probability reaches the threshold of the outputs, one for all classes.
    """

    def has_threshold(self, task: str) -> bool:
        """Return True: the probability from which a row has a label."""
        return True

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and labels."""
        return logits.cpu().numpy(), batch["labels"].cpu().numpy()

    def metric_names(self, task: str) -> list[str]:
        """Return micro and macro F1, and mean average precision."""
        return _METRICS

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function for rows that choose: its F1 is at the threshold that is best on these very rows."""

        def compute(outputs: EvalPrediction) -> Metrics:
            rows = Outputs(np.asarray(outputs.predictions), np.asarray(outputs.label_ids))
            return self.score(task, self.with_threshold(rows, rows))

        return compute

    def score(self, task: str, outputs: Outputs) -> Metrics:
        """Return the metrics of outputs at their threshold, over the labelled rows.

        The mean of average precision is over the classes that some row has; NaN without any.
        """
        known = _is_labelled(outputs.labels)
        labels, probabilities = outputs.labels[known].astype(int), expit(outputs.predictions[known].astype(float))
        predicted = probabilities >= _threshold(outputs)
        return _metrics(labels, predicted.astype(int), probabilities)

    def with_threshold(self, outputs: Outputs, chosen_on: Outputs | None) -> Outputs:
        """Return outputs with the threshold that has the highest micro F1 on some labelled rows; 0.5 without any."""
        known = None if chosen_on is None else _is_labelled(chosen_on.labels)
        if chosen_on is None or known is None or not chosen_on.labels[known].any():
            return replace(outputs, threshold=DEFAULT_THRESHOLD)
        return replace(outputs, threshold=best_threshold(chosen_on.predictions[known], chosen_on.labels[known]))

    def majority(self, task: str, train: Any, rows: Any, collator: Callable) -> Metrics:
        """Return the metrics of always predicting the most frequent labels of the training rows.

        As many of them as have the highest micro F1 there. The scores of average precision are their frequencies.
        """
        labels, references = (np.asarray(part["labels"][:], dtype=float) for part in (train, rows))
        labels, references = labels[_is_labelled(labels)], references[_is_labelled(references)].astype(int)
        shares = labels.mean(0) if len(labels) else np.zeros(references.shape[1])
        constant = np.isin(np.arange(len(shares)), _most_frequent(shares))
        predicted, scores = (np.broadcast_to(one, references.shape) for one in (constant.astype(int), shares))
        return _metrics(references, predicted, scores)

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return micro F1 as sums over rows: true positives, false positives, false negatives."""
        return _hits_and_misses, f1_of_sums

    def row_labels(self, outputs: Outputs, rows: Any) -> np.ndarray:
        """Return the ids of the labels of each row, as a tuple."""
        return _as_tuples(outputs.labels == 1)

    def row_scores(self, outputs: Outputs) -> RowScores:
        """Return the set of labels of each row, its probability, and whether it is another than the true set.

        The probability of a set is the product over classes: the model has them independent of each other.
        """
        predicted, known = _predicted(outputs), _is_labelled(outputs.labels)
        signed = np.where(predicted, 1, -1) * outputs.predictions.astype(float)
        errors = np.where(known, (predicted != (outputs.labels == 1)).any(1), np.nan)
        return RowScores(_as_tuples(predicted), np.exp(-np.logaddexp(0, -signed).sum(1)), errors)

    def calibration(self) -> Mapping[str, tuple[RowFeatures, MetricOfSums]]:
        """Return `ece` and `nll` in nats, over all labels of all labelled rows, each by itself.

        `ece` is the mean gap, over 15 bins of a label's probability, between that and how often rows have the label.
        """
        return {"ece": (_gaps, calibration_error_of_sums), "nll": (_likelihoods, ratio_of_sums)}

    def class_scores(self, outputs: Outputs) -> list[dict[str, float]]:
        """Return precision, recall and F1 of each class over labelled rows; 0 where nothing was predicted."""
        known = _is_labelled(outputs.labels)
        scores = precision_recall_fscore_support(
            outputs.labels[known].astype(int), _predicted(outputs)[known].astype(int), average=None, zero_division=0
        )
        names = ("precision", "recall", "f1", "rows")
        return [dict(zip(names, map(float, values), strict=True)) for values in zip(*scores, strict=True)]

    def fidelity(self, batches: Sequence[tuple[Tensor, Tensor]], labels: Tensor | None) -> dict[str, Any]:
        """Return `agreement` and `kl` of logits, at the default threshold."""
        teacher, student = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
        return self.fidelity_of(*(Outputs(one, np.zeros_like(one)) for one in (teacher, student)))

    def fidelity_of(self, teacher: Outputs, student: Outputs) -> dict[str, Any]:
        """Return `agreement`, the fraction of rows with the same set of labels, and `kl` in nats a row, at T = 1."""
        equal = (_predicted(teacher) == _predicted(student)).all(1)
        of_student, of_teacher = (torch.from_numpy(outputs.predictions).double() for outputs in (student, teacher))
        kl = float(soft_target_bernoulli_kl(of_student, of_teacher))
        return {"agreement": float(equal.mean()), "kl": kl / len(equal)}


EVALUATOR = MultilabelEvaluator()


def best_threshold(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the probability from which predicted labels have the highest micro F1; of equal ones the nearest to 0.5.

    Args:
        logits: (rows, classes).
        labels: (rows, classes), 0 or 1, some of them 1.
    """
    precision, recall, thresholds = precision_recall_curve(labels.ravel(), expit(logits.astype(float)).ravel())
    f1 = (2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny))[:-1]
    best = thresholds[f1 >= f1.max() - 1e-12]
    nearest = best[np.abs(best - DEFAULT_THRESHOLD).argmin()]
    return math.floor(nearest * 1e6) / 1e6  # short enough to be read, and below the probability that it is of


def _metrics(labels: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> Metrics:
    micro, macro = (f1_score(labels, predicted, average=mean, zero_division=0) for mean in ("micro", "macro"))
    by_class = [average_precision_score(labels[:, i], scores[:, i]) for i in np.flatnonzero(labels.any(0))]
    precision = float(np.mean(by_class)) if by_class else math.nan
    return {"f1_micro": float(micro), "f1_macro": float(macro), "mean_average_precision": precision}


def _is_labelled(labels: np.ndarray) -> np.ndarray:
    return ~np.isnan(labels).any(1)


def _threshold(outputs: Outputs) -> float:
    return DEFAULT_THRESHOLD if outputs.threshold is None else outputs.threshold


def _predicted(outputs: Outputs) -> np.ndarray:
    return expit(outputs.predictions.astype(float)) >= _threshold(outputs)


def _as_tuples(chosen: np.ndarray) -> np.ndarray:
    """Return the numbers of the columns that are True in each row, (rows,) tuples."""
    return rows_of_tuples(tuple(map(int, np.flatnonzero(row))) for row in chosen)


def _hits_and_misses(outputs: Outputs) -> np.ndarray:
    """Return (rows, 3): labels that are rightly predicted, wrongly predicted, and missed; 0 in rows without a label."""
    predicted, truth = _predicted(outputs), outputs.labels == 1
    counts = [predicted & truth, predicted & ~truth, ~predicted & truth]
    return np.stack([cells.sum(1) for cells in counts], axis=1) * _is_labelled(outputs.labels)[:, None].astype(float)


def _gaps(outputs: Outputs) -> np.ndarray:
    """Return (rows, bins + 1): Σ over labels of the gaps of `gaps_in_bins`, and their number; 0 without labels."""
    known, shape = _is_labelled(outputs.labels)[:, None], outputs.labels.shape
    truth = np.where(known, outputs.labels, 0).ravel()
    gaps = gaps_in_bins(expit(outputs.predictions.astype(float)).ravel(), truth).reshape(*shape, -1).sum(1)
    return np.hstack([gaps, np.full((shape[0], 1), shape[1])]) * known


def _likelihoods(outputs: Outputs) -> np.ndarray:
    """Return (rows, 2): Σ over labels of −log likelihood, and their number; 0 in rows without a label."""
    known, count = _is_labelled(outputs.labels)[:, None], outputs.labels.shape[1]
    signed = np.where(outputs.labels == 1, 1, -1) * outputs.predictions.astype(float)
    losses = np.logaddexp(0, -signed).sum(1)
    return np.stack([losses, np.full_like(losses, count)], axis=1) * known


def _most_frequent(shares: np.ndarray) -> np.ndarray:
    """Return the classes that have the highest micro F1 if every row is predicted to have them.

    Args:
        shares: the fraction of the rows that have each class.
    """
    order = np.argsort(-shares, kind="stable")
    found = np.cumsum(shares[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + max(shares.sum(), np.finfo(float).tiny))
    return order[: f1.argmax() + 1]
