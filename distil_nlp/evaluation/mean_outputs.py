"""The mean answers of several models on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit, log_softmax, logit, logsumexp

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.tasks import TaskKind
from distil_nlp.tasks.kind import Output


def mean_outputs(models: Sequence[Mapping[str, Outputs]], kind: TaskKind) -> dict[str, Outputs]:
    """Return the mean answers of several models, by split, in the form of their outputs.

    For classes and labels these are the logits of the mean probabilities, (rows, classes); for numbers the mean. The
    threshold of labels is the mean of theirs.

    Args:
        models: of each, its outputs by split.
        kind: kind of task.
    """
    return {split: _mean([model[split] for model in models], kind) for split in models[0]}


def _mean(outputs: Sequence[Outputs], kind: TaskKind) -> Outputs:
    stacked = np.stack([one.predictions for one in outputs]).astype(np.float64)
    return replace(outputs[0], predictions=_MEANS[kind.output](stacked), threshold=mean_threshold(outputs))


def mean_threshold(outputs: Sequence[Outputs]) -> float | None:
    """Return the mean of the thresholds of several models' outputs; None for a kind of task without."""
    thresholds = [one.threshold for one in outputs if one.threshold is not None]
    return float(np.mean(thresholds)) if thresholds else None


def _of_distributions(logits: np.ndarray) -> np.ndarray:
    return logsumexp(log_softmax(logits, axis=-1), axis=0) - np.log(len(logits))


_MEANS: Mapping[Output, Callable[[np.ndarray], np.ndarray]] = {
    "distribution": _of_distributions,
    "number": lambda outputs: outputs.mean(0),
    "score": lambda outputs: outputs.mean(0),
    "embedding": lambda vectors: vectors.mean(0),
    "labels": lambda logits: logit(expit(logits).mean(0)),
}
"""Meaning of the outputs → (models, rows, classes) → mean, (rows, classes)."""
