"""Model outputs on evaluation splits, row by row, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, send_to_device
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind, task_kind


@dataclass
class Outputs:
    """Outputs of a model on one split, in the order of its rows.

    Attributes:
        predictions: logits, (rows, classes), numbers, (rows, 1), or vectors, (texts, length). For `mlm` (blocks, 3):
            summed loss in nats, correct tokens, masked tokens. For `tokens` sums of each sentence, see
            `evaluation.tokens`.
        labels: (rows,), or (rows, classes) where a row has several; for `mlm` unused, for `tokens` a checksum of the
            sentence's tags; for embeddings see `data.embedding`.
        threshold: probability from which a row has a label, where it may have several; of questions that may have no
            answer, how far the score of none may exceed that of the best answer; None for other tasks.
        reference: the teacher's predictions, where scores are taken against them (embeddings).
        texts: (rows,), what is predicted, as text, where the predictions are sums alone; see
            `Evaluator.outputs_with_texts`.
    """

    predictions: np.ndarray
    labels: np.ndarray
    threshold: float | None = None
    reference: np.ndarray | None = None
    texts: np.ndarray | None = None


def predict(
    model: PreTrainedModel,
    kind: TaskKind | str,
    splits: Mapping[str, Any],
    collator: Callable,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> dict[str, Outputs]:
    """Return the outputs of a model on each split.

    Each process runs a part of the rows, and all of them return all rows. Rows with a column `length` are run in order
    of it, so that batches need little padding.

    Args:
        model: keeps its mode; ends on `device`.
        kind: kind of task.
        splits: name → rows.
        collator: makes batches of rows.
        batch_size: rows of a forward.
        device: where the model runs.
        bf16: run under autocast in bfloat16.
    """
    kind = task_kind(kind)
    recorder = Recorder(model, SignalRequest(logits=True), head_rows=kind.level == "token")
    was_training = model.training
    model.to(device).eval()  # type: ignore[arg-type]  # transformers wraps `to` without its types
    collate = scoring_collator(model, kind, collator)
    outputs = {}
    for name, rows in splits.items():
        order = longest_first(rows)
        loader = DataLoader(_rows_of_process(rows, order), batch_size=batch_size, collate_fn=collate)
        batches = [_forward(model, batch, kind, device, bf16) for batch in loader]
        outputs[name] = _gather_in_order(batches, order)
    recorder.remove()
    model.train(was_training)
    return outputs


def scoring_collator(model: PreTrainedModel, kind: TaskKind, collator: Callable) -> RowCollator:
    """Return a collator of batches for the outputs that a kind of task is scored by."""
    names = frozenset({kind.label_rows})
    return RowCollator(collator, RowSets(kind, names, names), forward_arguments(model) | kind.columns)


def longest_first(rows: Any) -> np.ndarray:
    """Return the numbers of the rows, the longest first; in their own order where they have no column `length`."""
    if "length" not in getattr(rows, "column_names", ()):
        return np.arange(len(rows))
    return np.argsort(-np.asarray(rows["length"]), kind="stable")


def _rows_of_process(rows: Any, order: np.ndarray) -> Subset:
    """Return the rows that this process runs: every n-th of n processes."""
    state = PartialState()
    return Subset(rows, order[state.process_index :: state.num_processes].tolist())


def _gather_in_order(batches: list[tuple[np.ndarray, ...]], order: np.ndarray) -> Outputs:
    """Return the outputs of all processes in the order of the rows.

    Args:
        batches: predictions and labels of this process's batches, and texts where there are some.
        order: the numbers of all rows, in the order in which they were run.
    """
    by_process = gather_object([batches])
    example = next(batch for own in by_process for batch in own)
    arrays = [np.empty((len(order), *part.shape[1:]), dtype=part.dtype) for part in example]
    for i, own in enumerate(by_process):
        for array, parts in zip(arrays, zip(*own, strict=True), strict=False):  # it may have no batch
            array[order[i :: len(by_process)]] = np.concatenate(parts)
    predictions, labels, *texts = arrays
    return Outputs(predictions, labels, texts=texts[0].astype(str) if texts else None)


@torch.no_grad()
def _forward(
    model: PreTrainedModel, batch: dict[str, Any], kind: TaskKind, device: torch.device | str, bf16: bool
) -> tuple[np.ndarray, ...]:
    """Return predictions and labels of a batch, as `Outputs` has them, and texts if the kind of task has some."""
    batch = send_to_device(batch, device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        logits = forward_with_signals(model, batch, batch["rows"]).logits.float()
    return evaluator_of(kind).outputs_with_texts(logits, batch)
