"""A breakdown of the scores: rows that teacher and student have right, classes, and texts by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distil_nlp.evaluation.kinds import RowScores, evaluator_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.tasks import TaskKind, task_kind

_QUARTILES = (0.25, 0.5, 0.75)


def breakdown(
    kind: TaskKind | str, teacher: Outputs, student: Outputs, lengths: Sequence[int], labels: Sequence[str] | None
) -> dict[str, Any]:
    """Return the block `breakdown` of `results.json`; {} for a kind of task without classes or predictions of rows.

    Args:
        kind: kind of task.
        teacher: outputs on a split.
        student: outputs on the same rows.
        lengths: tokens of each row.
        labels: names of the classes; None for their numbers.
    """
    evaluator = evaluator_of(kind)
    models: dict[str, Any] = {"teacher": evaluator.row_scores(teacher), "student": evaluator.row_scores(student)}
    found: dict[str, Any] = {}
    if None not in models.values():
        found["lengths"] = _by_length(models, evaluator.row_lengths(student, np.asarray(lengths)))
        if task_kind(kind).is_right_or_wrong:
            found["changes"] = _changes(models["teacher"].errors, models["student"].errors)
    outputs = {"teacher": teacher, "student": student}
    classes: dict[str, Any] = {role: evaluator.class_scores(values) for role, values in outputs.items()}
    if classes["teacher"]:
        found["classes"] = _by_class(classes, labels and evaluator.units(labels))
    return found


def _by_length(models: dict[str, RowScores], lengths: np.ndarray) -> list[dict[str, Any]]:
    """Return the mean error of both models for each quarter of the labelled rows, from short to long.

    Rows of one length stay together, so quarters may be uneven, or fewer than four.
    """
    known = ~np.isnan(models["teacher"].errors)
    quarters = np.searchsorted(np.unique(np.quantile(lengths[known], _QUARTILES)), lengths) if known.any() else lengths
    slices = [known & (quarters == quarter) for quarter in np.unique(quarters[known])]
    return [
        {
            "shortest": int(lengths[rows].min()),
            "longest": int(lengths[rows].max()),
            "rows": int(rows.sum()),
            **{role: float(scores.errors[rows].mean()) for role, scores in models.items()},
        }
        for rows in slices
    ]


def _changes(teacher: np.ndarray, student: np.ndarray) -> dict[str, int]:
    """Return how many labelled rows both models have right, only one of them, or neither."""
    return {
        "both_right": int(((teacher == 0) & (student == 0)).sum()),
        "lost": int(((teacher == 0) & (student == 1)).sum()),
        "won": int(((teacher == 1) & (student == 0)).sum()),
        "both_wrong": int(((teacher == 1) & (student == 1)).sum()),
    }


def _by_class(scores: dict[str, list[dict[str, float]]], labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return name, rows and scores of each class."""
    classes = []
    for number, (teacher, student) in enumerate(zip(scores["teacher"], scores["student"], strict=True)):
        rows = int(teacher.pop("rows"))
        student.pop("rows")
        name = str(labels[number]) if labels else str(number)
        classes.append({"name": name, "rows": rows, "teacher": teacher, "student": student})
    return classes
