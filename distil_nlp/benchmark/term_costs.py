"""The cost of each loss term: steps with soft targets only, and with one further term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from distil_nlp.benchmark.interleaved import ContenderResult, StepGate
from distil_nlp.benchmark.task_workload import TaskWorkload, task_trainer
from distil_nlp.benchmark.trainer_steps import GateCallback
from distil_nlp.benchmark.workload import TEMPERATURE
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.tasks import GLUE

SOFT_TARGETS_ONLY = "soft targets alone"
MEASURED = tuple(name for name in TERMS if name != SoftTargetKL.name)
"""Every registered term but the one that all steps have."""
_TASKS = ("mrpc", "mnli", "stsb")
_GROUP_SIZE = 5
"""Terms measured at a time beside the baseline, so that six processes share the memory."""


def supported_task(term: str) -> str | None:
    """Return the first task that supports a term: MRPC, MNLI where two classes are too few, or STS-B."""
    term_class = TERMS[term]
    for name in _TASKS:
        task = GLUE[name]
        least_classes = getattr(term_class, "least_classes", 2)
        if term_class.applies_to(task.kind) and (not task.labels or len(task.labels) >= least_classes):
            return name
    return None


def term_groups(terms: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield (task, terms), the terms that are measured together."""
    for task in _TASKS:
        of_task = [term for term in terms if supported_task(term) == task]
        alike = [[term for term in of_task if TERMS[term].compares_passes == twice] for twice in (False, True)]
        for group in alike:
            for start in range(0, len(group), _GROUP_SIZE):
                yield task, group[start : start + _GROUP_SIZE]


def run_with_term(gate: StepGate, work: TaskWorkload, further: str | None = None) -> None:
    """Take steps with soft targets and, if named, a further term with its default options; each runs the teacher."""
    rows, head = work.load(4 * work.rows)
    terms = [SoftTargetKL(1.0, TEMPERATURE), *([TERMS[further]()] if further else [])]
    rows = rows_of_median_length(rows, work.rows)
    task_trainer(work, terms, rows, head, GateCallback(gate), train_sampling_strategy="random").train()


def rows_of_median_length(rows: Dataset, count: int) -> Dataset:
    """Return the rows around the median length: their batches are alike, and padded as little as grouped ones."""
    order = np.argsort(rows["length"], kind="stable")
    start = max(len(order) - count, 0) // 2
    return rows.select(np.sort(order[start : start + count]))


def relative_costs(results: Mapping[str, ContenderResult]) -> dict[str, dict[str, Any]]:
    """Return the results of a group, each with its cost relative to the baseline step, that of soft targets only.

    `times_plain` is the median as a multiple of the baseline's, `quartiles` those of the ratios of its steps to the
    baseline's steps on the same rows, `more_mib` the difference of the peaks of memory.
    """
    baseline = results[SOFT_TARGETS_ONLY]
    costs = {name: result.to_dict() for name, result in results.items()}
    for name, result in results.items():
        if result.problem is None and baseline.problem is None and result.median and baseline.median:
            costs[name]["times_plain"] = round(result.median / baseline.median, 4)
            ratios = np.divide(result.seconds, baseline.seconds)
            costs[name]["quartiles"] = [round(float(value), 4) for value in np.quantile(ratios, (0.25, 0.75))]
        if result.peak_mib is not None and baseline.peak_mib is not None:
            costs[name]["more_mib"] = round(result.peak_mib - baseline.peak_mib, 1)
    return costs
