"""Scores without a model: the majority class, the mean, token frequencies."""

from __future__ import annotations

import math
from collections.abc import Iterable

import evaluate
import numpy as np

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.evaluation.metrics import GLUE_METRIC, Metrics
from distil_nlp.tasks.base import CUSTOM_TASKS
from distil_nlp.tasks.glue import GLUE


def majority_metrics(task: str, train_labels: Iterable[float], references: Iterable[float]) -> Metrics:
    """The metrics of always predicting the commonest training class (the mean, for regression; class 0 or 0 without
    labels): the floor that a score must be seen against. On MRPC its F1 is 0.812."""
    labels = np.asarray(list(train_labels))
    references = np.asarray(list(references))
    if (GLUE | CUSTOM_TASKS)[task].kind == "regression":
        known = labels[~np.isnan(labels)]
        constant = np.full(len(references), known.mean() if len(known) else 0.0)
    else:
        known = labels[labels >= 0]
        constant = np.full(len(references), np.bincount(known).argmax() if len(known) else 0)
    metric = evaluate.load(GLUE_METRIC, task, keep_in_memory=True)
    return metric.compute(predictions=constant, references=references)


def unigram_metrics(train: Iterable[dict], held_out: Iterable[dict], collator: MaskingCollator) -> Metrics:
    """Perplexity and accuracy of a model that knows only how frequent each token is in training: no teacher
    should be near it."""
    frequencies = token_frequencies(train, len(collator.tokenizer))
    frequencies[list(collator.tokenizer.all_special_ids)] = 0  # they are never masked
    logs = np.log(np.maximum(frequencies, 1e-12) / frequencies.sum())
    labels = np.concatenate([_targets(collator, row) for row in held_out])
    loss = float(-logs[labels].mean())
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "accuracy": float((labels == frequencies.argmax()).mean()),
    }


def _targets(collator: MaskingCollator, row: dict) -> np.ndarray:
    labels = collator([row])["labels"].numpy()
    return labels[labels != -100]
