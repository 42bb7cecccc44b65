"""What each term costs: steps with soft targets alone, and with one term more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from distil_nlp.benchmark.interleaved import ContenderResult, StepGate
from distil_nlp.benchmark.task_workload import TaskWorkload
from distil_nlp.benchmark.trainer_steps import GateCallback
from distil_nlp.benchmark.workload import TEMPERATURE
from distil_nlp.data import TaskCollator
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import GLUE
from distil_nlp.training.trainer import DistillationTrainer

SOFT_TARGETS_ONLY = "soft targets alone"
MEASURED = tuple(name for name in TERMS if name != SoftTargetKL.name)
"""Every term of the table but the one that all steps have."""
_TASKS = ("mrpc", "mnli", "stsb")
_BESIDE_PLAIN = 5
"""Terms measured at a time, so that six processes share the memory."""


def task_of(term: str) -> str | None:
    """The first task that a term has a meaning for: MRPC, MNLI where two classes are too few, or STS-B."""
    kind = TERMS[term]
    for name in _TASKS:
        task = GLUE[name]
        if kind.applies_to(task.kind) and (not task.labels or len(task.labels) >= getattr(kind, "least_classes", 2)):
            return name
    return None


def term_groups(terms: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """(task, terms) of what is measured at a time."""
    for task in _TASKS:
        of_task = [term for term in terms if task_of(term) == task]
        for start in range(0, len(of_task), _BESIDE_PLAIN):
            yield task, of_task[start : start + _BESIDE_PLAIN]


def run_with_term(turns: StepGate, work: TaskWorkload, further: str | None = None) -> None:
    """Steps with soft targets and, if named, a further term with its default options; the teacher is asked in each."""
    rows, head = work.load(4 * work.rows)
    student, teacher = work.models(head)
    terms = [SoftTargetKL(1.0, TEMPERATURE), *([TERMS[further]()] if further else [])]
    DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective(terms, head.kind),
        args=work.arguments(train_sampling_strategy="random"),
        train_dataset=rows_of_median_length(rows, work.rows),
        data_collator=TaskCollator(work.tokenizer(), head.kind),
        callbacks=[GateCallback(turns)],
    ).train()


def rows_of_median_length(rows: Dataset, count: int) -> Dataset:
    """The rows around the median length: their batches are alike, and padded as little as if grouped by length."""
    order = np.argsort(rows["length"], kind="stable")
    start = max(len(order) - count, 0) // 2
    return rows.select(np.sort(order[start : start + count]))


def relative_costs(scores: Mapping[str, ContenderResult]) -> dict[str, dict[str, Any]]:
    """Scores of a group, each with its median as a multiple of plain's, the quartiles of its steps' ratios to plain's
    steps on the same rows, and the memory that its peak has more."""
    plain, told = scores[SOFT_TARGETS_ONLY], {name: score.to_dict() for name, score in scores.items()}
    for name, score in scores.items():
        if score.problem is None and plain.problem is None and score.median and plain.median:
            told[name]["times_plain"] = round(score.median / plain.median, 4)
            ratios = np.divide(score.seconds, plain.seconds)
            told[name]["quartiles"] = [round(float(one), 4) for one in np.quantile(ratios, (0.25, 0.75))]
        if score.peak_mib is not None and plain.peak_mib is not None:
            told[name]["more_mib"] = round(score.peak_mib - plain.peak_mib, 1)
    return told
