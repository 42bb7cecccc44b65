"""Quality of a model: a task's official metrics, or perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import evaluate
from transformers import EvalPrediction, PreTrainedModel

from distil_nlp.evaluation.kinds import Metrics, task_evaluator
from distil_nlp.evaluation.predict import Outputs, predict
from distil_nlp.tasks import TASKS, TaskKind


def headline_metric(task: str) -> str:
    """Return the metric that retention is taken on: a task's own, top-1 accuracy on masked tokens for `mlm`."""
    return TASKS[task].headline


def metric_names(task: str) -> list[str]:
    """Return the metrics that evaluation reports for a task, besides the loss and its terms."""
    return task_evaluator(task).metric_names(task)


def load_metric(task: str) -> evaluate.EvaluationModule:
    """Return a task's official metrics; works offline."""
    return evaluate.load(GLUE_METRIC, task, keep_in_memory=True)


def score(
    model: PreTrainedModel, task: str, kind: TaskKind | str, splits: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Metrics:
    """Return the metrics of a model on labelled splits, as fractions; further arguments as for `predict`."""
    return metrics_of(task, predict(model, kind, splits, *args, **kwargs))


def metrics_of(task: str, outputs: Mapping[str, Outputs]) -> Metrics:
    """Return the metrics of outputs, by split.

    One split gives plain names (`accuracy`), several give `accuracy` of the first and `<split>/accuracy` of each. For
    `mlm`: `loss` in nats per masked token, `perplexity`, top-1 `accuracy`.
    """
    function = task_evaluator(task).metrics(task)
    by_split = {
        split: function(EvalPrediction(part.predictions, part.labels, part.reference))
        for split, part in outputs.items()
    }
    metrics = dict(next(iter(by_split.values())))
    if len(by_split) > 1:
        metrics |= {f"{split}/{name}": value for split, values in by_split.items() for name, value in values.items()}
    return metrics


def retention(student: Mapping[str, float], teacher: Mapping[str, float], task: str) -> float | None:
    """Return student ÷ teacher on the headline metric; None where the teacher's is not above 0."""
    name = headline_metric(task)
    return _ratio(student.get(name), teacher.get(name))


def retention_above_majority(
    student: Mapping[str, float], teacher: Mapping[str, float], majority: Mapping[str, float], task: str
) -> float | None:
    """Return (student − majority) ÷ (teacher − majority) on the headline metric.

    Guessing does not raise this retention.
    """
    name = headline_metric(task)
    base = majority.get(name)
    if base is None or not math.isfinite(base):
        base = 0.0
    if student.get(name) is None or teacher.get(name) is None:
        return None
    return _ratio(student[name] - base, teacher[name] - base)


def _ratio(student: float | None, teacher: float | None) -> float | None:
    if student is None or teacher is None or not teacher > 0:
        return None
    return student / teacher


GLUE_METRIC = str(Path(__file__).with_name("glue_metric.py"))
"""The path for `evaluate.load(GLUE_METRIC, "mrpc")`."""
