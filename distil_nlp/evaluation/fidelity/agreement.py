"""Agreement of student and teacher on held-out rows: predictions, output distributions, and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.errors import UserError
from distil_nlp.evaluation.fidelity.cka import cka_table
from distil_nlp.evaluation.fidelity.other_tokens import OtherTokens
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models.architecture import ensemble_members, layer_stack
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, Signals, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind, task_kind
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

CKA_ROWS = 128
"""Upper limit of rows whose layers are compared."""

_SAMPLED = "sampled"


@torch.no_grad()
def compare_models(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    kind: TaskKind | str,
    rows: Any,
    collator: Callable,
    *,
    outputs: tuple[Outputs, Outputs] | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    max_rows: int = 2000,
    cka_rows: int = CKA_ROWS,
    cka_tokens: int = 2048,
    no_cka: str | None = None,
    other_tokens: OtherTokens | None = None,
) -> dict[str, Any]:
    """Return the block `fidelity` of `results.json`.

    - `rows`: number of sequences whose outputs are compared: all of them where `outputs` are given and belong to
      sequences, else at most `max_rows`, evenly spaced over the set.
    - classification: `agreement`, the fraction of equal predictions; `kl`, the mean KL(teacher ‖ student) in nats at
      temperature 1; over labelled rows, of both models, `ece` (see `expected_calibration_error`), `nll`, the mean
      −log likelihood of the label in nats, and `confusion`, counts with true classes as rows and predicted ones as
      columns.
    - multi-label classification: `agreement`, the fraction of rows with the same set of labels, and `kl`, the sum over
      labels of the KL between the two probabilities.
    - regression: `pearson` of the student's outputs with the teacher's (None where one is constant) and
      `mean_absolute_difference`.
    - mlm: `agreement` and `kl` over the masked tokens, `tokens` of them.
    - tokens: `agreement` and `kl` over the words that have a tag, `tokens` of them, and `entity_f1`, that of the
      student's entities where the teacher's are taken for the truth.
    - `cka`: linear CKA (see `linear_cka`) of every student layer with every teacher layer, embedding outputs
      included, over at most `cka_tokens` tokens, drawn with a fixed seed from all tokens of at most `cka_rows`
      sequences, evenly spaced over the set; absent below 4 tokens, or where a model does not show its states:
      `cka_not_measured` then has the reason.

    Both models run on the same batches, each on the columns it knows. They keep their weights and mode, and end on
    `device`. There is no communication between processes: call this on the main process alone.

    Args:
        teacher: model or ensemble.
        student: model.
        kind: kind of task.
        rows: an evaluation split.
        collator: makes batches of rows.
        outputs: of teacher and student on these rows, as `predict` returned them, so that neither is run again.
            Without effect for `mlm` and `tokens`, whose outputs are sums.
        batch_size: rows of a forward.
        device: where both models run.
        bf16: run under autocast in bfloat16.
        max_rows: upper limit of rows whose outputs are computed here.
        cka_rows: upper limit of rows whose layers are compared.
        cka_tokens: upper limit of tokens for CKA.
        no_cka: why the layers of the two models cannot be compared, if they cannot.
        other_tokens: the teacher's, where outputs are of tokens and its own are others: the words that are one token in
            both are compared. None of them: {}.
    """
    place = (rows, collator, batch_size, device, bf16, other_tokens)
    comparison = _Comparison(teacher, student, task_kind(kind), *place)
    known = outputs if comparison.kind.has_row_outputs else None
    fidelity = comparison.of_known(*known) if known else comparison.of_outputs(max_rows)
    if outputs and not known:
        fidelity |= evaluator_of(kind).agreement_of(*outputs)
    return fidelity | ({"cka_not_measured": no_cka} if no_cka else comparison.of_layers(cka_rows, cka_tokens))


def compare_outputs(teacher: Outputs, student: Outputs, kind: TaskKind) -> dict[str, Any]:
    """Return the block `fidelity` of outputs that are there already, without layers."""
    return {"rows": len(student.labels), **evaluator_of(kind).fidelity_of(teacher, student)}


@dataclass(frozen=True)
class _Comparison:
    """Teacher and student on the same rows; see `compare_models` for the attributes."""

    teacher: PreTrainedModel
    student: PreTrainedModel
    kind: TaskKind
    rows: Any
    collator: Callable
    batch_size: int
    device: torch.device | str
    bf16: bool
    other: OtherTokens | None = None

    def of_known(self, teacher: Outputs, student: Outputs) -> dict[str, Any]:
        """Return the agreement of outputs that are there already."""
        return compare_outputs(teacher, student, self.kind)

    def of_outputs(self, max_rows: int) -> dict[str, Any]:
        """Return the agreement of the outputs on at most so many rows."""
        evaluator = evaluator_of(self.kind)
        batches = self.batches(max_rows)
        if self.other is not None and not any(len(batch["rows"][self.other.compared]) for batch in batches):
            return {}
        outputs = [
            self._compared(teacher.logits, student.logits, batch)
            for (teacher, student), batch in zip(self.signals(batches, "logits"), batches, strict=True)
        ]
        labels = torch.cat([batch["labels"] for batch in batches]) if _has_row_labels(batches, self.kind) else None
        return {"rows": sum(len(batch["input_ids"]) for batch in batches), **evaluator.fidelity(outputs, labels)}

    def _compared(self, teacher: Tensor, student: Tensor, batch: Mapping[str, Any]) -> Any:
        """Return what `Evaluator.compare_batch` makes of the logits of a batch."""
        evaluator = evaluator_of(self.kind)
        if self.other is None:
            return evaluator.compare_batch(teacher, student, batch)
        aligned: Any = self.other.aligned(teacher, student, batch)  # of a vocabulary `TopLogits`
        return evaluator.compare_batch(aligned, student, self.other.of_student(batch))

    def of_layers(self, max_rows: int, max_tokens: int) -> dict[str, Any]:
        """Return `cka`, or `cka_not_measured`; nothing below 4 tokens."""
        if unseen := _why_unseen(self.teacher, self.student):
            logger.warning(f"CKA not measured: {unseen}")
            return {"cka_not_measured": unseen}
        batches = self.batches(max_rows)
        if _sample_tokens(batches, max_tokens) < 4:
            return {}
        hidden = [[signals.hidden for signals in both] for both in self.signals(batches, "layers")]
        return {"cka": _cka(*zip(*hidden, strict=True))}

    def batches(self, max_rows: int) -> list[dict[str, Any]]:
        """Return batches of at most so many rows, evenly spaced over the set."""
        collate = self._collator()
        count = min(len(self.rows), max_rows)
        chosen = Subset(self.rows, [i * len(self.rows) // count for i in range(count)])
        loader = DataLoader(chosen, batch_size=self.batch_size, collate_fn=collate, generator=torch.Generator())
        return list(loader)  # its own generator: a loader draws from torch's otherwise, even to read in order

    def _collator(self) -> RowCollator:
        if self.other is not None:
            return self.other.collator(self.collator, self.teacher, self.student)
        output = evaluator_of(self.kind).fidelity_sets
        known = forward_arguments(self.teacher) | forward_arguments(self.student) | self.kind.columns
        return RowCollator(self.collator, RowSets(self.kind, output | {"all"}, output), known)

    def signals(
        self, batches: list[dict[str, Any]], kept: Literal["logits", "layers"]
    ) -> Iterator[tuple[Signals, Signals]]:
        """Yield the signals of teacher and student for each batch: their logits, or the states of all layers."""
        with self._recording(self.teacher, kept), self._recording(self.student, kept):
            for batch in batches:
                inputs = send_to_device(batch, self.device)
                read = inputs if self.other is None else self.other.of_teacher(inputs)
                yield self._forward(self.teacher, read), self._forward(self.student, inputs)

    @contextmanager
    def _recording(self, model: PreTrainedModel, kept: Literal["logits", "layers"]) -> Iterator[None]:
        """Capture the model's signals in eval mode on the device; then restore its mode."""
        request = SignalRequest(logits=True) if kept == "logits" else SignalRequest(hidden=_all_layers(model))
        recorder, was_training = Recorder(model, request, head_rows=self.kind.level == "token"), model.training
        try:
            model.to(self.device).eval()  # type: ignore[arg-type]  # transformers wraps `to` without its types
            yield
        finally:
            recorder.remove()
            model.train(was_training)

    def _forward(self, model: PreTrainedModel, batch: Mapping[str, Any]) -> Signals:
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self.bf16):
            return forward_with_signals(model, batch, batch["rows"])


# Batches ------------------------------------------------------------------------------------------


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
