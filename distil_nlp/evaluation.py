"""How good a model is: a task's official metrics, or perplexity. Does not know how the model was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import evaluate
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from transformers import EvalPrediction, PreTrainedModel

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.metrics import GLUE_METRIC, glue_metric
from distil_nlp.objective import Objective
from distil_nlp.recorder import Recorder
from distil_nlp.rows import RowCollator
from distil_nlp.signals import forward_names, observe
from distil_nlp.tasks import GLUE, OWN, Kind
from distil_nlp.term import Shape

MLM_HEADLINE = "accuracy"
Metrics = dict[str, float]


def headline(task: str) -> str:
    """The metric that retention is taken on: a task's own, top-1 accuracy on masked tokens for `mlm`."""
    return MLM_HEADLINE if task == "mlm" else (GLUE | OWN)[task].headline


def metric_names(task: str) -> list[str]:
    """What evaluation reports for a task, besides the loss and its terms."""
    return ["perplexity", MLM_HEADLINE] if task == "mlm" else glue_metric.TASKS[task]


def metric_function(task: str) -> Callable[[EvalPrediction], Metrics]:
    """What `Trainer` calls on gathered logits and labels."""
    metric = evaluate.load(GLUE_METRIC, task, keep_in_memory=True)
    is_regression = (GLUE | OWN)[task].kind == "regression"

    def compute(seen: EvalPrediction) -> Metrics:
        outputs, labels = np.asarray(seen.predictions), np.asarray(seen.label_ids)
        predictions = outputs.reshape(-1) if is_regression else outputs.argmax(-1)
        known = ~np.isnan(labels) if is_regression else labels != -100
        return metric.compute(predictions=predictions[known], references=labels[known])

    return compute


@dataclass
class Outputs:
    """What a model says of one split, in the order of its rows.

    Attributes:
        predictions: logits, (rows, classes), or numbers, (rows, 1). For `mlm` (blocks, 3): summed loss in nats, tokens
            that were right, masked tokens.
        labels: (rows,); for `mlm` unused.
    """

    predictions: np.ndarray
    labels: np.ndarray


def score(
    model: PreTrainedModel, task: str, kind: Kind, splits: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Metrics:
    """The metrics of a model on labelled splits, as fractions; arguments as for `predict`."""
    return metrics_of(task, predict(model, kind, splits, *args, **kwargs))


def predict(
    model: PreTrainedModel,
    kind: Kind,
    splits: Mapping[str, Any],
    collator: Callable,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> dict[str, Outputs]:
    """The outputs of a model on each split; each process looks at its share of the rows, and all get the whole."""
    objective = Objective([HardLabel()], kind)
    objective.bind(None, Shape.of(model.config))
    recorder, was_training = Recorder(model, objective.request("student"), head_rows=kind == "mlm"), model.training
    model.to(device).eval()
    collate = RowCollator(collator, objective.row_sets(), forward_names(model) | {"labels", "word_ids"})
    found = {}
    for name, rows in splits.items():
        loader = DataLoader(_share(rows), batch_size=batch_size, collate_fn=collate)
        seen = [_look(model, batch, kind, device, bf16) for batch in loader]
        found[name] = _in_order(seen, len(rows))
    recorder.remove()
    model.train(was_training)
    return found


def metrics_of(task: str, outputs: Mapping[str, Outputs]) -> Metrics:
    """One split gives plain names (`accuracy`), several give `accuracy` of the first and `<split>/accuracy` of
    each. For `mlm`: `loss` in nats per masked token, `perplexity`, top-1 `accuracy`."""
    function = _mlm_metrics if task == "mlm" else metric_function(task)
    found = {name: function(EvalPrediction(seen.predictions, seen.labels)) for name, seen in outputs.items()}
    metrics = dict(next(iter(found.values())))
    if len(found) > 1:
        metrics |= {f"{split}/{name}": value for split, values in found.items() for name, value in values.items()}
    return metrics


def _share(rows: Any) -> Subset:
    """The rows that this process looks at."""
    state = PartialState()
    return Subset(rows, range(state.process_index, len(rows), state.num_processes))


def _in_order(seen: list[tuple[np.ndarray, np.ndarray]], count: int) -> Outputs:
    """What all processes saw of their shares, in batches, as outputs in the order of the rows."""
    shares = gather_object([seen])
    some = next(batch for share in shares for batch in share)
    whole = [np.empty((count, *part.shape[1:]), dtype=part.dtype) for part in some]
    for i, share in enumerate(shares):
        for array, parts in zip(whole, zip(*share, strict=True), strict=False):  # none, where there were too few rows
            array[i :: len(shares)] = np.concatenate(parts)
    return Outputs(*whole)


@torch.no_grad()
def _look(
    model: PreTrainedModel, batch: dict[str, Any], kind: Kind, device: torch.device | str, bf16: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, labels) of a batch, as `Outputs` has them."""
    batch = send_to_device(batch, device)
    known = forward_names(model)
    inputs = {name: value for name, value in batch.items() if name in known}
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        logits = observe(model, inputs, batch["rows"]).logits.float()
    labels = batch["labels"]
    if kind == "mlm":
        logits, labels = _by_block(logits, labels, batch["rows"]["masked"]), labels[:, 0]
    return logits.cpu().numpy(), labels.cpu().numpy()


def _by_block(logits: Tensor, labels: Tensor, masked: Tensor) -> Tensor:
    """(blocks, 3): loss, right and masked tokens of each block, from the logits of the masked tokens."""
    truth, block = labels.flatten()[masked], masked // labels.shape[1]
    loss = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
    right = (logits.argmax(-1) == truth).float()
    found = torch.stack([loss, right, torch.ones_like(loss)], dim=1).cpu().double()
    return found.new_zeros(len(labels), 3).index_add_(0, block.cpu(), found)


def _mlm_metrics(seen: EvalPrediction) -> Metrics:
    loss, right, tokens = seen.predictions.sum(0).tolist()
    loss = loss / tokens
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": right / tokens}


def majority_metrics(task: str, train_labels: Iterable[float], references: Iterable[float]) -> Metrics:
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
