"""How often, how closely and by which way inside a student comes to its teacher's outputs on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.evaluation.fidelity.cka import cka_table
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.models.architecture import layer_stack
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, Signals, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind, task_kind

_SAMPLED = "sampled"


@torch.no_grad()
def compare_models(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    kind: TaskKind | str,
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
    kind = task_kind(kind)
    evaluator = evaluator_of(kind)
    batches = _batches(teacher, student, kind, rows, collator, batch_size, max_rows)
    total = _sample_tokens(batches, cka_tokens)
    outputs, hidden = [], []
    with _watched(teacher, kind, device), _watched(student, kind, device):
        for batch in batches:
            seen = [_look(model, send_to_device(batch, device), bf16) for model in (teacher, student)]
            outputs.append(evaluator.compare_batch(*(signals.logits for signals in seen)))
            hidden.append([one.hidden for one in seen])
    labels = torch.cat([batch["labels"] for batch in batches]) if _has_row_labels(batches, kind) else None
    found = {"rows": sum(len(batch["input_ids"]) for batch in batches), **evaluator.fidelity(outputs, labels)}
    if total >= 4:
        found["cka"] = _cka(*zip(*hidden, strict=True))
    return found


# What both models are shown -----------------------------------------------------------------------------------


def _batches(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    kind: TaskKind,
    rows: Any,
    collator: Callable,
    batch_size: int,
    max_rows: int,
) -> list[dict[str, Any]]:
    output = evaluator_of(kind).fidelity_sets
    known = forward_arguments(teacher) | forward_arguments(student) | {"labels", "word_ids"}
    collate = RowCollator(collator, RowSets(kind, output | {"all"}, output), known)
    count = min(len(rows), max_rows)
    chosen = Subset(rows, [i * len(rows) // count for i in range(count)])
    loader = DataLoader(chosen, batch_size=batch_size, collate_fn=collate, generator=torch.Generator())
    return list(loader)  # its own generator: a loader draws from torch's otherwise, even to read in order


def _has_row_labels(batches: list[dict[str, Any]], kind: TaskKind) -> bool:
    return kind.level == "sequence" and "labels" in batches[0]


def _sample_tokens(batches: list[dict[str, Any]], wanted: int) -> int:
    """Adds a row set to each batch: its part of a uniform draw among all attended tokens. How many were drawn."""
    counts = [batch["tokens"] for batch in batches]
    drawn = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0))[:wanted]
    is_drawn = torch.zeros(sum(counts), dtype=torch.bool).index_fill_(0, drawn, True)
    for batch, part in zip(batches, is_drawn.split(counts), strict=True):
        batch["rows"][_SAMPLED] = batch["rows"]["all"][part]
    return len(drawn)


@contextmanager
def _watched(model: PreTrainedModel, kind: TaskKind, device: torch.device | str) -> Iterator[None]:
    """The model in eval mode on the device, its logits and all its layers recorded; as before afterwards."""
    layers = range(EMBEDDINGS, len(layer_stack(model)))
    request = SignalRequest(logits=True, hidden=frozenset((layer, _SAMPLED) for layer in layers))
    recorder, was_training = Recorder(model, request, head_rows=kind.level == "token"), model.training
    try:
        model.to(device).eval()
        yield
    finally:
        recorder.remove()
        model.train(was_training)


def _look(model: PreTrainedModel, batch: dict[str, Any], bf16: bool) -> Signals:
    with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
        return forward_with_signals(model, batch, batch["rows"])


# Layers -------------------------------------------------------------------------------------------


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
