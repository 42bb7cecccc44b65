"""Targets of a tree: the teacher's distributions, labels, or both."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.tree.training import TreeSettings


def teacher_targets(train: Outputs, settings: TreeSettings) -> np.ndarray:
    """Return the targets of all rows, (rows, classes): (1 − w) softmax(logits ÷ T) + w label, w = 0 without a label."""
    weights = np.where(is_labelled(train), settings.label_weight, 0.0)[:, None]
    return (1 - weights) * softmax(train.predictions / settings.temperature, axis=-1) + weights * label_targets(train)


def label_targets(train: Outputs) -> np.ndarray:
    """Return 1 for the label of each row and 0 for other classes, (rows, classes); 0 for all without a label."""
    return (train.labels[:, None] == np.arange(train.predictions.shape[1])).astype(float)


def is_labelled(train: Outputs) -> np.ndarray:
    """Return which rows have a label, (rows,)."""
    return train.labels != -100
