"""Agreement of student and teacher on held-out rows: predictions, output distributions, and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.errors import UserError
from distil_nlp.evaluation.fidelity.cka import cka_table
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.models.architecture import ensemble_members, layer_stack
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, Signals, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind, task_kind
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

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
    """Return the block `fidelity` of `results.json`.

    - `rows`: number of sequences compared, at most `max_rows`, evenly spaced over the set.
    - classification: `agreement`, the fraction of equal predictions; `kl`, the mean KL(teacher ‖ student) in nats at
      temperature 1; over labelled rows `ece` (see `expected_calibration_error`) and `confusion`, counts with true
      classes as rows and predicted ones as columns, of both models.
    - regression: `pearson` of the student's outputs with the teacher's (None where one is constant) and
      `mean_absolute_difference`.
    - mlm: `agreement` and `kl` over the masked tokens, `tokens` of them.
    - `cka`: linear CKA (see `linear_cka`) of every student layer with every teacher layer, embedding outputs
      included, over at most `cka_tokens` tokens drawn evenly from all; absent below 4 tokens, or where a model does
      not show its states: `cka_not_measured` then has the reason.

    Both models run on the same batches, each on the columns it knows. They keep their weights and mode, and end on
    `device`. There is no communication between processes: call this on the main process alone.

    Args:
        teacher: model or ensemble.
        student: model.
        kind: kind of task.
        rows: an evaluation split.
        collator: makes batches of rows.
        batch_size: rows of a forward.
        device: where both models run.
        bf16: run under autocast in bfloat16.
        max_rows: upper limit of rows.
        cka_tokens: upper limit of tokens for CKA.
    """
    kind = task_kind(kind)
    evaluator = evaluator_of(kind)
    batches = _batches(teacher, student, kind, rows, collator, batch_size, max_rows)
    total = _sample_tokens(batches, cka_tokens)
    unseen = _why_unseen(teacher, student)
    outputs, hidden = [], []
    with _recording(teacher, kind, device, not unseen), _recording(student, kind, device, not unseen):
        for batch in batches:
            both = [_forward(model, send_to_device(batch, device), bf16) for model in (teacher, student)]
            outputs.append(evaluator.compare_batch(*(signals.logits for signals in both)))
            hidden.append([signals.hidden for signals in both])
    labels = torch.cat([batch["labels"] for batch in batches]) if _has_row_labels(batches, kind) else None
    fidelity = {"rows": sum(len(batch["input_ids"]) for batch in batches), **evaluator.fidelity(outputs, labels)}
    if unseen:
        logger.warning(f"CKA not measured: {unseen}")
        fidelity["cka_not_measured"] = unseen
    elif total >= 4:
        fidelity["cka"] = _cka(*zip(*hidden, strict=True))
    return fidelity


# Batches ------------------------------------------------------------------------------------------


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


def _sample_tokens(batches: list[dict[str, Any]], limit: int) -> int:
    """Add a row set to each batch, its part of a uniform draw among all attended tokens; return the number drawn."""
    counts = [batch["tokens"] for batch in batches]
    drawn = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0))[:limit]
    is_drawn = torch.zeros(sum(counts), dtype=torch.bool).index_fill_(0, drawn, True)
    for batch, part in zip(batches, is_drawn.split(counts), strict=True):
        batch["rows"][_SAMPLED] = batch["rows"]["all"][part]
    return len(drawn)


def _why_unseen(*models: PreTrainedModel) -> str | None:
    """Return why the states of all layers cannot be had of one of the models; None if they can."""
    try:
        for model in models:
            Recorder(model, SignalRequest(hidden=_all_layers(model))).remove()
    except UserError as error:
        return f"expected {error.expected} / got {error.got}"
    return None


def _all_layers(model: PreTrainedModel) -> frozenset[tuple[int, str]]:
    return frozenset((layer, _SAMPLED) for layer in range(EMBEDDINGS, len(layer_stack(ensemble_members(model)[0]))))


@contextmanager
def _recording(model: PreTrainedModel, kind: TaskKind, device: torch.device | str, layers: bool) -> Iterator[None]:
    """Capture the model's logits, and all its layers if asked, in eval mode on the device; then restore its mode."""
    request = SignalRequest(logits=True, hidden=_all_layers(model) if layers else frozenset())
    recorder, was_training = Recorder(model, request, head_rows=kind.level == "token"), model.training
    try:
        model.to(device).eval()
        yield
    finally:
        recorder.remove()
        model.train(was_training)


def _forward(model: PreTrainedModel, batch: dict[str, Any], bf16: bool) -> Signals:
    with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
        return forward_with_signals(model, batch, batch["rows"])


# Layers -------------------------------------------------------------------------------------------


def _cka(teacher: Sequence[dict], student: Sequence[dict]) -> dict[str, Any]:
    """Return CKA of all pairs of layers.

    Args:
        teacher: for each batch, (layer, row set) → hidden states (tokens, width).
        student: likewise.
    """
    teacher_states, student_states = _by_layer(teacher), _by_layer(student)
    values = cka_table(student_states.values(), teacher_states.values())
    return {
        "teacher_layers": [*teacher_states],
        "student_layers": [*student_states],
        "values": [[round(value, 4) for value in line] for line in values],
        "tokens": len(next(iter(teacher_states.values()))),
    }


def _by_layer(batches: Sequence[dict]) -> dict[int | str, Tensor]:
    """Return layer → hidden states of all batches, (tokens, width)."""
    return {
        "embeddings" if key[0] == EMBEDDINGS else key[0]: torch.cat([hidden[key] for hidden in batches])
        for key in sorted(batches[0])
    }
