"""Scores of a student and its graphs on the rows of its task, batch by batch in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.evaluation.kinds import Evaluator, Metrics, evaluator_of
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.evaluation.predict import Outputs, longest_first
from distil_nlp.export.forwards import LogitsForward
from distil_nlp.tasks import TaskKind

STUDENT_MODEL = "student"
"""Name of the forward that the others are compared with."""
_OF_VOCABULARY = 8
"""Rows of a batch at most where a model has a logit for each word at each position."""


@dataclass(frozen=True)
class GraphScore:
    """Scores of the student, or of one of its graphs.

    Attributes:
        metrics: as `metrics_of` has them.
        agreement: how alike predictions are to the student's, as the kind's evaluator tells it on the first split;
            {} for the student.
    """

    metrics: Metrics
    agreement: dict[str, Any]


@dataclass(frozen=True)
class ScoredRows:
    """The rows to score on.

    Attributes:
        task: name in the table of tasks.
        kind: its kind.
        splits: name → rows.
        collator: rows → batch.
        columns: inputs of the student.
        kept: the run's own outputs of the student on these rows: their thresholds and the teacher's vectors count.
        batch_size: rows of a forward.
    """

    task: str
    kind: TaskKind
    splits: Mapping[str, Any]
    collator: Callable
    columns: frozenset[str]
    kept: Mapping[str, Outputs]
    batch_size: int = 32


@dataclass
class _Pass:
    """What is kept of a pass over a split: outputs, and comparisons with the student."""

    outputs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    compared: list[Any] = field(default_factory=list)


def score_forwards(forwards: Mapping[str, LogitsForward], rows: ScoredRows) -> dict[str, GraphScore]:
    """Return the scores of forwards, one of which is the student's, and how alike the others' predictions are to its.

    Args:
        forwards: name → forward.
        rows: what they are scored on.
    """
    evaluator, first = evaluator_of(rows.kind), next(iter(rows.splits))
    outputs: dict[str, dict[str, Outputs]] = {name: {} for name in forwards}
    agreement: dict[str, dict[str, Any]] = {name: {} for name in forwards}
    for split in rows.splits:
        passes, order, labels = _run(forwards, rows, split, evaluator)
        for name, one in passes.items():
            outputs[name][split] = _in_order(one.outputs, order, rows.kept[split])
        if split == first:
            student = outputs[STUDENT_MODEL][split]
            agreement |= {
                name: _agreement(evaluator, rows.kind, student, outputs[name][split], one.compared, labels)
                for name, one in passes.items()
                if name != STUDENT_MODEL
            }
    return {name: GraphScore(metrics_of(rows.task, outputs[name]), agreement[name]) for name in forwards}


def _run(
    forwards: Mapping[str, LogitsForward], rows: ScoredRows, split: str, evaluator: Evaluator
) -> tuple[dict[str, _Pass], np.ndarray, Tensor | None]:
    """Run all forwards over a split; return what is kept of each, the order of the rows, and their labels."""
    order = longest_first(rows.splits[split])
    passes: dict[str, _Pass] = {name: _Pass() for name in forwards}
    labels: list[Tensor] = []
    for batch in _batches(rows, split, order, evaluator):
        logits = {name: _of_rows(forward(batch), batch, rows.kind) for name, forward in forwards.items()}
        for name, one in passes.items():
            one.outputs.append(evaluator.outputs(logits[name], batch))
            if name != STUDENT_MODEL:
                one.compared.append(evaluator.compare_batch(logits[STUDENT_MODEL], logits[name], batch))
        if rows.kind.level == "sequence" and "labels" in batch:
            labels.append(batch["labels"])
    return passes, order, torch.cat(labels) if labels else None


def _batches(rows: ScoredRows, split: str, order: np.ndarray, evaluator: Evaluator) -> DataLoader:
    names = frozenset({rows.kind.label_rows}) | evaluator.fidelity_sets
    collate = RowCollator(rows.collator, RowSets(rows.kind, names, names), rows.columns | rows.kind.columns)
    size = min(rows.batch_size, _OF_VOCABULARY) if rows.kind.predicts_words else rows.batch_size
    return DataLoader(Subset(rows.splits[split], order.tolist()), batch_size=size, collate_fn=collate)


def _of_rows(logits: Tensor, batch: Mapping[str, Any], kind: TaskKind) -> Tensor:
    """Return the logits of the rows that count: of sequences all, of tokens those of the head's rows."""
    if kind.level == "sequence":
        return logits
    return logits.flatten(0, 1).index_select(0, batch["rows"]["head"])


def _in_order(batches: Sequence[tuple[np.ndarray, np.ndarray]], order: np.ndarray, kept: Outputs) -> Outputs:
    """Return the outputs in the order of the rows, with the threshold and the reference of the run's own."""
    back = np.argsort(order)
    predictions, labels = (np.concatenate(parts)[back] for parts in zip(*batches, strict=True))
    return replace(kept, predictions=predictions, labels=labels)


def _agreement(
    evaluator: Evaluator,
    kind: TaskKind,
    student: Outputs,
    other: Outputs,
    compared: Sequence[Any],
    labels: Tensor | None,
) -> dict[str, Any]:
    if kind.has_row_outputs:
        return evaluator.fidelity_of(student, other)
    return evaluator.fidelity(compared, labels) | evaluator.agreement_of(student, other)
