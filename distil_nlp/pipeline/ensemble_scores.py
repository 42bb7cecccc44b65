"""Scores of an ensemble's teachers: each alone, the others without it, and how much it counts, from kept outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distil_nlp.evaluation.bootstrap import score_interval
from distil_nlp.evaluation.mean_outputs import mean_threshold
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.teachers.mixing import Mixing

BINS = 10
"""Bins of a histogram of weights, from 0 to 1."""
SplitOutputs = Mapping[str, Outputs]


def mixed_outputs(members: Sequence[SplitOutputs], mixing: Mixing) -> dict[str, Outputs]:
    """Return the outputs of an ensemble on each split, from those of its teachers: logits, or numbers.

    As `Ensemble` does by itself, without labels and without a student.
    """
    return {
        split: Outputs(
            mixing.mixed(_logits(members, split)).float().numpy(),
            first.labels,
            mean_threshold([member[split] for member in members]),
        )
        for split, first in members[0].items()
    }


def member_scores(
    task: str, members: Sequence[SplitOutputs], mixing: Mixing, student: SplitOutputs, are_mixable: bool
) -> list[dict[str, Any]]:
    """Return the scores of each teacher of an ensemble, as `teacher.members` of `results.json` has them.

    Args:
        task: name in the table of metrics.
        members: outputs of each teacher; answers that some rows lack (NaN) have no scores of their own.
        mixing: how they are mixed.
        student: outputs of the run's own student, whose uncertainty weighs them.
        are_mixable: whether outputs are logits or numbers, which can be mixed anew.
    """
    split = next(iter(student))
    found: list[dict[str, Any]] = []
    for number, outputs in enumerate(members):
        own: dict[str, Any] = {}
        if not any(np.isnan(one.predictions).any() for one in outputs.values()):
            own = {"metrics": metrics_of(task, outputs), "interval": score_interval(task, [outputs[split]])}
        others = [other for other in range(len(members)) if other != number]
        if are_mixable and any(mixing.weights[other] for other in others if other in mixing.models):
            without = mixed_outputs([members[other] for other in others], mixing.of(others))
            own["without"] = {
                "metrics": metrics_of(task, without),
                "interval": score_interval(task, [without[split]]),
            }
        found.append({"weight": mixing.weights[number], **own})
    if are_mixable:
        for own, weights in zip(found, _weights(members, mixing, student, split), strict=True):
            own["row_weights"] = _summary(weights)
    return found


def _weights(members: Sequence[SplitOutputs], mixing: Mixing, student: SplitOutputs, split: str) -> np.ndarray:
    """Return the weight of each teacher in each row of a split, as a step of training would have it."""
    labels = torch.from_numpy(members[0][split].labels)
    known = labels if not labels.is_floating_point() else None
    own = torch.from_numpy(student[split].predictions)
    return mixing.row_weights(_logits(members, split), known, own).numpy()


def _summary(weights: np.ndarray) -> dict[str, Any]:
    counts, _ = np.histogram(weights, bins=BINS, range=(0, 1))
    return {"mean": float(weights.mean()), "counts": counts.tolist()}


def _logits(members: Sequence[SplitOutputs], split: str) -> list[Tensor]:
    return [torch.from_numpy(outputs[split].predictions) for outputs in members]
