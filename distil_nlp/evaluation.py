"""How good a model is: a task's official metrics, or perplexity. Does not know how the model was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import evaluate
import numpy as np
from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.metrics import GLUE_METRIC
from distil_nlp.objective import Objective
from distil_nlp.tasks import GLUE, OWN, Kind
from distil_nlp.terms import HardLabel
from distil_nlp.trainer import DistillationTrainer

MLM_HEADLINE = "accuracy"


def headline(task: str) -> str:
    """The metric that retention is taken on: a task's own, top-1 accuracy on masked tokens for `mlm`."""
    return MLM_HEADLINE if task == "mlm" else (GLUE | OWN)[task].headline


def metric_function(task: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """What `Trainer` calls on gathered logits and labels."""
    metric = evaluate.load(GLUE_METRIC, task, keep_in_memory=True)
    is_regression = (GLUE | OWN)[task].kind == "regression"

    def compute(seen: EvalPrediction) -> dict[str, float]:
        outputs = np.asarray(seen.predictions)
        predictions = outputs.reshape(-1) if is_regression else outputs.argmax(-1)
        return metric.compute(predictions=predictions, references=np.asarray(seen.label_ids))

    return compute


def score(
    model: PreTrainedModel,
    task: str,
    kind: Kind,
    splits: Mapping[str, Any],
    collator: Callable,
    args: TrainingArguments,
) -> dict[str, float]:
    """The metrics of a model on labelled splits, as fractions.

    One split gives plain names (`accuracy`), several give `accuracy` of the first and `<split>/accuracy` of
    each. For `mlm`: `loss` in nats per masked token, `perplexity`, top-1 `accuracy`.
    """
    compute = None if kind == "mlm" else metric_function(task)
    scorer = DistillationTrainer(
        model=model,
        args=args,
        objective=Objective([HardLabel()], kind),
        data_collator=collator,
        compute_metrics=compute,
    )
    scorer.model.eval()
    found = {name: _plain(scorer.evaluate(rows, metric_key_prefix=name), name, kind) for name, rows in splits.items()}
    scorer.detach()
    metrics = dict(next(iter(found.values())))
    if len(found) > 1:
        metrics |= {f"{split}/{name}": value for split, values in found.items() for name, value in values.items()}
    return metrics


def _plain(metrics: dict[str, float], prefix: str, kind: Kind) -> dict[str, float]:
    """Trainer's metrics without its prefix, and without what is about time."""
    plain = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items()}
    about_time = (
        "runtime",
        "samples_per_second",
        "steps_per_second",
        "model_preparation_time",
        "epoch",
        "hard_label",
    )
    if kind != "mlm":
        about_time += ("loss",)
    return {name: value for name, value in plain.items() if name not in about_time}


def majority_metrics(task: str, train_labels: Iterable[float], references: Iterable[float]) -> dict[str, float]:
    """The metrics of always predicting the commonest training class (the mean, for regression; class 0 or 0 without
    labels): the floor that a score must be seen against. On MRPC its F1 is 0.812."""
    labels = np.asarray(list(train_labels))
    references = np.asarray(list(references))
    if (GLUE | OWN)[task].kind == "regression":
        known = labels[~np.isnan(labels)]
        constant = np.full(len(references), known.mean() if len(known) else 0.0)
    else:
        known = labels[labels >= 0]
        constant = np.full(len(references), np.bincount(known).argmax() if len(known) else 0)
    metric = evaluate.load(GLUE_METRIC, task, keep_in_memory=True)
    return metric.compute(predictions=constant, references=references)


def unigram_metrics(train: Iterable[dict], held_out: Iterable[dict], collator: MaskingCollator) -> dict[str, float]:
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


def retention(student: Mapping[str, float], teacher: Mapping[str, float], task: str) -> float | None:
    """student ÷ teacher on the headline metric; None where the teacher's is not above 0."""
    name = headline(task)
    return _ratio(student.get(name), teacher.get(name))


def retention_above_majority(
    student: Mapping[str, float], teacher: Mapping[str, float], floor: Mapping[str, float], task: str
) -> float | None:
    """(student − floor) ÷ (teacher − floor) on the headline metric: retention that guessing does not raise."""
    name = headline(task)
    base = floor.get(name)
    if base is None or not math.isfinite(base):
        base = 0.0
    if student.get(name) is None or teacher.get(name) is None:
        return None
    return _ratio(student[name] - base, teacher[name] - base)


def _ratio(student: float | None, teacher: float | None) -> float | None:
    if student is None or teacher is None or not teacher > 0:
        return None
    return student / teacher
