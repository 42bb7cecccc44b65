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

from distil_nlp.data.row_sets import RowCollator
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind, task_kind


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
    """The outputs of a model on each split; each process looks at its share of the rows, and all get the whole."""
    kind = task_kind(kind)
    objective = Objective([HardLabel()], kind)
    objective.bind(None, ModelShape.of(model.config))
    recorder, was_training = (
        Recorder(model, objective.request("student"), head_rows=kind.level == "token"),
        model.training,
    )
    model.to(device).eval()
    collate = RowCollator(collator, objective.row_sets(), forward_arguments(model) | {"labels", "word_ids"})
    found = {}
    for name, rows in splits.items():
        loader = DataLoader(_share(rows), batch_size=batch_size, collate_fn=collate)
        seen = [_look(model, batch, kind, device, bf16) for batch in loader]
        found[name] = _in_order(seen, len(rows))
    recorder.remove()
    model.train(was_training)
    return found


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
    model: PreTrainedModel, batch: dict[str, Any], kind: TaskKind, device: torch.device | str, bf16: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, labels) of a batch, as `Outputs` has them."""
    batch = send_to_device(batch, device)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        logits = forward_with_signals(model, batch, batch["rows"]).logits.float()
    return evaluator_of(kind).outputs(logits, batch)
