"""Distances between the outputs of two models, and calibration."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax
from torch import Tensor

from distil_nlp.losses.soft_targets import soft_target_kl, soft_target_kl_top
from distil_nlp.signals.top_logits import TopLogits

_CHUNK = 256
"""Rows whose distributions are compared at once: those of a vocabulary are large."""


def count_agreement(teacher: Tensor | TopLogits, student: Tensor) -> tuple[int, int, float]:
    """Return (rows, rows with equal predictions, Σ KL(teacher ‖ student) in nats) of logits (rows, classes).

    Of a teacher that knows some words alone, predictions are the likeliest of these, and the KL is that over them and
    all others as one.
    """
    if isinstance(teacher, TopLogits):
        equal = int((teacher.values.argmax(-1) == student.gather(-1, teacher.words).argmax(-1)).sum())
        starts = range(0, len(student), _CHUNK)
        parts = ((student[start : start + _CHUNK], teacher.logits(start, start + _CHUNK)) for start in starts)
        return len(student), equal, sum(float(soft_target_kl_top(*part)) for part in parts)
    equal = int((teacher.argmax(-1) == student.argmax(-1)).sum())
    chunks = zip(student.split(_CHUNK), teacher.split(_CHUNK), strict=True)
    return len(student), equal, sum(float(soft_target_kl(*chunk)) for chunk in chunks)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return Σ_bins fraction of rows · |accuracy − mean confidence|, over bins of equal width in the top probability.

    It is 0 for a model that is right as often as it says. Bins include their upper edge.

    Args:
        probabilities: (rows, classes).
        labels: (rows,).
        bins: number of bins.

    Reference: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    return float(np.abs(confidence_gaps(probabilities, labels, bins).sum(0)).sum() / len(labels))


def confidence_gaps(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return each row's (right − top probability) in the column of its bin, and 0 elsewhere, (rows, bins).

    Args:
        probabilities: (rows, classes).
        labels: (rows,).
        bins: number of bins; see `expected_calibration_error`.
    """
    return gaps_in_bins(probabilities.max(-1), probabilities.argmax(-1) == labels, bins)


def gaps_in_bins(probabilities: np.ndarray, outcomes: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return each (outcome − probability) in the column of its probability's bin, and 0 elsewhere, (events, bins).

    Args:
        probabilities: of events, (events,).
        outcomes: whether they took place, (events,).
        bins: number of bins; see `expected_calibration_error`.
    """
    gaps = np.zeros((len(outcomes), bins))
    where = np.ceil(probabilities * bins).astype(int).clip(1, bins) - 1
    gaps[np.arange(len(outcomes)), where] = outcomes - probabilities
    return gaps


def calibration_error_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return Σ_bins |gaps| ÷ number of each row of sums over events, (draws, bins + 1): gaps by bin, and the number."""
    return np.abs(sums[:, :-1]).sum(1) / sums[:, -1]


def negative_log_likelihoods(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return −log softmax(logits)[label] of each row in nats, (rows,).

    Args:
        logits: (rows, classes).
        labels: (rows,), integers in [0, classes).
    """
    return -log_softmax(logits.astype(float), axis=-1)[np.arange(len(labels)), labels]
