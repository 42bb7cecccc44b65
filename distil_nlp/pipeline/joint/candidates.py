"""Several equal candidates for the student: their starts, what they have in common, the choice, and all scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from distil_nlp.errors import UserError, listed
from distil_nlp.evaluation.mean_outputs import mean_outputs
from distil_nlp.evaluation.metrics import Metrics, headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.joint.base import JOINT, Judge, output_terms
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.tasks import TASKS
from distil_nlp.training.fit import Finished
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def best_of(key: str, models: Sequence[PreTrainedModel], judge: Judge, facts: Sequence[Mapping[str, Any]]) -> Finished:
    """Return the model that is best on the rows that checkpoints are chosen by; the first without such rows.

    The record has the scores of each model, their mean, and those of their ensemble, on the evaluation rows.

    Args:
        key: of the scheme, such as `peers`.
        models: the student first.
        judge: scores them.
        facts: further facts on each for the record.
    """
    word, headline = key.removesuffix("es" if key.endswith("ches") else "s"), headline_metric(judge.task)
    selection = [judge.choose(model, f"{word} {i + 1}") for i, model in enumerate(models)]
    chosen_by = [None if outputs is None else metrics_of(judge.task, outputs)[headline] for outputs in selection]
    best = max(range(len(models)), key=lambda i: _or_least(chosen_by[i]))
    if chosen_by[0] is None:
        logger.info(
            f"no rows to choose by, so the first of {len(models)} {key} is kept; training.eval_strategy splits some off"
        )
    outputs = [judge.score(model, f"{word} {i + 1}") for i, model in enumerate(models)]
    scores = [metrics_of(judge.task, one) for one in outputs]
    members = [
        {**fact, "metrics": own} | ({} if value is None else {"selection": value})
        for fact, own, value in zip(facts, scores, chosen_by, strict=True)
    ]
    found = {
        "members": members,
        "exported": best + 1,
        "chosen_by": "first" if chosen_by[0] is None else headline,
        "mean": {name: float(np.mean([own[name] for own in scores])) for name in scores[0]},
        "ensemble": ensemble_metrics(judge.task, outputs),
    }
    return Finished(models[best], record={JOINT: {key: found}})


def ensemble_metrics(task: str, outputs: Sequence[Mapping[str, Outputs]]) -> Metrics:
    """Return the metrics of the mean answers of several models (`mean_outputs`).

    Args:
        task: name of the task.
        outputs: of each model, by split.
    """
    return metrics_of(task, mean_outputs(outputs, TASKS[task].kind))


def lower_layers(layers: list[int], by: int) -> list[int]:
    """Return the layers that lie `by` below each of these; none below the first."""
    return [max(layer - by, 0) for layer in layers]


def validate_equal_heads(plan: RunPlan, where: str) -> None:
    """Raise UserError for terms on layers, which one of several candidates alone would have.

    Args:
        where: recipe key of the scheme.
    """
    lone = [term.name for term in plan.objective.terms if term not in output_terms(plan.objective)]
    if lone:
        raise UserError(
            where,
            "terms on outputs alone",
            listed(lone),
            why="they would teach the first alone",
            fix="set their weights to 0, or leave it out",
        )


def _or_least(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value
