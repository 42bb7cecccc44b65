"""Whether a student under-fits: its loss on training rows beside the teacher's, of both without dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from distil_nlp.data import TransferSet
from distil_nlp.data.row_sets import sample_rows
from distil_nlp.evaluation.kinds import task_evaluator
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.tasks import TASKS

_ROWS = 512
"""Number of training rows on which the loss is measured."""


def sample_of_training_rows(data: TransferSet) -> Any:
    """Return at most 512 labelled training rows, drawn the same way each time; None of a stream, or without labels."""
    if data.kind.has_labels and not data.num_labelled:
        return None
    rows = data.labelled()
    if not hasattr(rows, "select") or not hasattr(rows, "__len__"):
        return None
    return sample_rows(rows, _ROWS)


def mean_loss(task: str, outputs: Outputs) -> float | None:
    """Return the mean loss on labels: nats for classes and words, squared error for numbers; None of others."""
    evaluator = task_evaluator(task)
    if "nll" in evaluator.calibration():
        features, metric = evaluator.calibration()["nll"]
        return float(metric(features(outputs).sum(0, keepdims=True))[0])
    scores = evaluator.row_scores(outputs) if TASKS[task].kind.output == "number" else None
    if scores is not None:
        return float(np.nanmean(scores.errors**2))
    return metrics_of(task, {"train": outputs}).get("loss")
