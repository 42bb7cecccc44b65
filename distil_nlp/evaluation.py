"""How good a model is: a task's official metrics, or perplexity. Does not know how the model was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import evaluate
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, send_to_device
from torch.utils.data import DataLoader, Subset
from transformers import EvalPrediction, PreTrainedModel

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.metrics import GLUE_METRIC, glue_metric
from distil_nlp.objective import Objective
from distil_nlp.rows import RowCollator
from distil_nlp.signals import Recorder, forward_names, observe
from distil_nlp.tasks import GLUE, OWN, Kind
from distil_nlp.terms import HardLabel, Shape

MLM_HEADLINE = "accuracy"


def headline(task: str) -> str:
    """The metric that retention is taken on: a task's own, top-1 accuracy on masked tokens for `mlm`."""
    return MLM_HEADLINE if task == "mlm" else (GLUE | OWN)[task].headline


def metric_names(task: str) -> list[str]:
    """What evaluation reports for a task, besides the loss and its terms."""
    return ["perplexity", MLM_HEADLINE] if task == "mlm" else glue_metric.TASKS[task]


def metric_function(task: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """What `Trainer` calls on gathered logits and labels."""
    metric = evaluate.load(GLUE_METRIC, task, keep_in_memory=True)
    is_regression = (GLUE | OWN)[task].kind == "regression"

    def compute(seen: EvalPrediction) -> dict[str, float]:
        outputs, labels = np.asarray(seen.predictions), np.asarray(seen.label_ids)
        predictions = outputs.reshape(-1) if is_regression else outputs.argmax(-1)
        known = ~np.isnan(labels) if is_regression else labels != -100
        return metric.compute(predictions=predictions[known], references=labels[known])

    return compute


def score(
    model: PreTrainedModel,
    task: str,
    kind: Kind,
    splits: Mapping[str, Any],
    collator: Callable,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> dict[str, float]:
    """The metrics of a model on labelled splits, as fractions; each process scores its share of the rows.

    One split gives plain names (`accuracy`), several give `accuracy` of the first and `<split>/accuracy` of
    each. For `mlm`: `loss` in nats per masked token, `perplexity`, top-1 `accuracy`.
    """
    objective = Objective([HardLabel()], kind)
    objective.bind(None, Shape.of(model.config))
    recorder, was_training = Recorder(model, objective.request("student"), head_rows=kind == "mlm"), model.training
    model.to(device).eval()
    collate = RowCollator(collator, objective.row_sets(), forward_names(model) | {"labels", "word_ids"})
    found = {}
    for name, rows in splits.items():
        loader = DataLoader(_share(rows), batch_size=batch_size, collate_fn=collate)
        seen = [_look(model, batch, kind, device, bf16) for batch in loader]
        outputs, labels = (np.concatenate(parts) for parts in zip(*gather_object(seen), strict=True))
        found[name] = _mlm_metrics(outputs) if kind == "mlm" else metric_function(task)(EvalPrediction(outputs, labels))
    recorder.remove()
    model.train(was_training)
    metrics = dict(next(iter(found.values())))
    if len(found) > 1:
        metrics |= {f"{split}/{name}": value for split, values in found.items() for name, value in values.items()}
    return metrics


def _share(rows: Any) -> Subset:
    """The rows that this process scores."""
    state = PartialState()
    return Subset(rows, range(state.process_index, len(rows), state.num_processes))


@torch.no_grad()
def _look(
    model: PreTrainedModel, batch: dict[str, Any], kind: Kind, device: torch.device | str, bf16: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels) of a batch; for `mlm` (loss and whether right, of each masked token; labels)."""
    batch = send_to_device(batch, device)
    known = forward_names(model)
    inputs = {name: value for name, value in batch.items() if name in known}
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        logits = observe(model, inputs, batch["rows"]).logits.float()
    labels = batch["labels"]
    if kind == "mlm":
        labels = labels.flatten()[batch["rows"]["masked"]]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        logits = torch.stack([loss, (logits.argmax(-1) == labels).float()], dim=1)
    return logits.cpu().numpy(), labels.cpu().numpy()


def _mlm_metrics(tokens: np.ndarray) -> dict[str, float]:
    loss, accuracy = tokens.astype(np.float64).mean(0).tolist()
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": accuracy}


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
