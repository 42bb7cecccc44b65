"""How often, how closely and by which way inside a student comes to its teacher's outputs on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from scipy.stats import pearsonr
from sklearn.metrics import confusion_matrix
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.evaluation.fidelity.cka import cka_table
from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.models.architecture import layer_stack
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, Signals, forward_arguments, forward_with_signals
from distil_nlp.tasks.base import Kind

_SAMPLED = "sampled"
_CHUNK = 256
"""Tokens whose vocabulary distributions are compared at once."""


@torch.no_grad()
def compare_models(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    kind: Kind,
    rows: Any,
    collator: Callable,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    max_rows: int = 2000,
    cka_tokens: int = 2048,
) -> dict[str, Any]:
    """The block `fidelity` of `results.json`; rows, collator and the rest as for `evaluation.score`.

    - `rows`: sequences looked at, at most `max_rows`, evenly spaced over the set.
    - classification: `agreement`, the share of equal predictions; `kl`, the mean KL(teacher ‖ student) in nats at
      temperature 1; over labelled rows `ece` (see `expected_calibration_error`) and `confusion`, counts with true
      classes as rows and predicted ones as columns, of both models.
    - regression: `pearson` of the student's outputs with the teacher's (None where one is constant) and
      `mean_absolute_difference`.
    - mlm: `agreement` and `kl` over the masked tokens, `tokens` of them.
    - `cka`: linear CKA (see `linear_cka`) of every student layer with every teacher layer, embedding outputs
      included, over at most `cka_tokens` tokens drawn evenly from all; absent below 4 tokens.

    Both models see the same batches, each the columns it knows. They keep their weights and mode, and end on
    `device`. One process does it all, without talking to others: call it on the main process alone.
    """
    batches = _batches(teacher, student, kind, rows, collator, batch_size, max_rows)
    total = _sample_tokens(batches, cka_tokens)
    outputs, hidden = [], []
    with _watched(teacher, kind, device), _watched(student, kind, device):
        for batch in batches:
            seen = [_look(model, send_to_device(batch, device), bf16) for model in (teacher, student)]
            outputs.append(
                _sums(*(one.logits for one in seen)) if kind == "mlm" else [one.logits.cpu() for one in seen]
            )
            hidden.append([one.hidden for one in seen])
    found = {"rows": sum(len(batch["input_ids"]) for batch in batches)}
    if kind == "mlm":
        found |= _shares(*map(sum, zip(*outputs, strict=True)))
    else:
        theirs, ours = (torch.cat(parts).double() for parts in zip(*outputs, strict=True))
        labels = torch.cat([batch["labels"] for batch in batches]) if "labels" in batches[0] else None
        found |= _regression(theirs, ours) if kind == "regression" else _classification(theirs, ours, labels)
    if total >= 4:
        found["cka"] = _cka(*zip(*hidden, strict=True))
    return found


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Σ_bins share of rows · |accuracy − mean confidence|, over bins of equal width in the top probability.

    0 for a model that is right as often as it says. Args: probabilities (rows, classes), labels (rows,).
    Bins include their upper edge. Reference: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    where = np.ceil(confidence * bins).astype(int)
    return float(np.abs(np.bincount(where, weights=right - confidence)).sum() / len(labels))


# What both models are shown -----------------------------------------------------------------------------------


def _batches(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    kind: Kind,
    rows: Any,
    collator: Callable,
    batch_size: int,
    max_rows: int,
) -> list[dict[str, Any]]:
    output = frozenset({"masked"} if kind == "mlm" else ())
    known = forward_arguments(teacher) | forward_arguments(student) | {"labels", "word_ids"}
    collate = RowCollator(collator, RowSets(kind, output | {"all"}, output), known)
    count = min(len(rows), max_rows)
    chosen = Subset(rows, [i * len(rows) // count for i in range(count)])
    loader = DataLoader(chosen, batch_size=batch_size, collate_fn=collate, generator=torch.Generator())
    return list(loader)  # its own generator: a loader draws from torch's otherwise, even to read in order


def _sample_tokens(batches: list[dict[str, Any]], wanted: int) -> int:
    """Adds a row set to each batch: its part of a uniform draw among all attended tokens. How many were drawn."""
    counts = [batch["tokens"] for batch in batches]
    drawn = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0))[:wanted]
    is_drawn = torch.zeros(sum(counts), dtype=torch.bool).index_fill_(0, drawn, True)
    for batch, part in zip(batches, is_drawn.split(counts), strict=True):
        batch["rows"][_SAMPLED] = batch["rows"]["all"][part]
    return len(drawn)


@contextmanager
def _watched(model: PreTrainedModel, kind: Kind, device: torch.device | str) -> Iterator[None]:
    """The model in eval mode on the device, its logits and all its layers recorded; as before afterwards."""
    layers = range(EMBEDDINGS, len(layer_stack(model)))
    request = SignalRequest(logits=True, hidden=frozenset((layer, _SAMPLED) for layer in layers))
    recorder, was_training = Recorder(model, request, head_rows=kind == "mlm"), model.training
    try:
        model.to(device).eval()
        yield
    finally:
        recorder.remove()
        model.train(was_training)


def _look(model: PreTrainedModel, batch: dict[str, Any], bf16: bool) -> Signals:
    names = forward_arguments(model)
    inputs = {name: value for name, value in batch.items() if name in names}
    with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
        return forward_with_signals(model, inputs, batch["rows"])


# What is made of it -------------------------------------------------------------------------------------------


def _sums(theirs: Tensor, ours: Tensor) -> tuple[int, int, float]:
    """Rows, rows with equal predictions, and Σ KL(teacher ‖ student) in nats, of logits (rows, classes)."""
    equal = int((theirs.argmax(-1) == ours.argmax(-1)).sum())
    parts = zip(ours.split(_CHUNK), theirs.split(_CHUNK), strict=True)
    return len(ours), equal, sum(float(soft_target_kl(*part)) for part in parts)


def _shares(tokens: int, equal: int, kl: float) -> dict[str, Any]:
    return {"tokens": tokens, "agreement": equal / tokens, "kl": kl / tokens}


def _classification(theirs: Tensor, ours: Tensor, labels: Tensor | None) -> dict[str, Any]:
    count, equal, kl = _sums(theirs, ours)
    found: dict[str, Any] = {"agreement": equal / count, "kl": kl / count}
    known = torch.zeros(count, dtype=torch.bool) if labels is None else labels != -100
    if known.any():
        references, classes = labels[known].numpy(), range(ours.shape[-1])
        both = {"teacher": theirs.softmax(-1)[known].numpy(), "student": ours.softmax(-1)[known].numpy()}
        found["ece"] = {name: expected_calibration_error(one, references) for name, one in both.items()}
        found["confusion"] = {
            name: confusion_matrix(references, one.argmax(-1), labels=classes).tolist() for name, one in both.items()
        }
    return found


def _regression(theirs: Tensor, ours: Tensor) -> dict[str, Any]:
    theirs, ours = theirs.flatten().numpy(), ours.flatten().numpy()
    varies = np.ptp(theirs) > 0 and np.ptp(ours) > 0
    return {
        "pearson": float(pearsonr(ours, theirs).statistic) if varies else None,
        "mean_absolute_difference": float(np.abs(ours - theirs).mean()),
    }


def _cka(theirs: Sequence[dict], ours: Sequence[dict]) -> dict[str, Any]:
    """`theirs` and `ours`: of each batch, (layer, row set) → hidden states (tokens, width)."""
    states = [{key: torch.cat([one[key] for one in seen]) for key in sorted(seen[0])} for seen in (theirs, ours)]
    names = [["embeddings" if layer == EMBEDDINGS else layer for layer, _ in one] for one in states]
    values = cka_table(states[1].values(), states[0].values())
    return {
        "teacher_layers": names[0],
        "student_layers": names[1],
        "values": [[round(value, 4) for value in line] for line in values],
        "tokens": len(next(iter(states[0].values()))),
    }
