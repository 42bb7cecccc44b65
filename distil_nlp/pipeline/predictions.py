"""The columns of `predictions.parquet`: every evaluation row with what teacher and student make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from distil_nlp.data import Split
from distil_nlp.evaluation.kinds import Evaluator
from distil_nlp.evaluation.predict import Outputs

_TEXTS = ("text", "text_pair")


def prediction_columns(
    evaluator: Evaluator,
    split: Split,
    teacher: Mapping[str, Outputs] | None,
    student: Mapping[str, Outputs],
    labels: Sequence[str] | None,
    has_texts: bool,
) -> dict[str, list[Any]]:
    """Return column → values of all evaluation splits, as `results.predictions.COLUMNS` describes them.

    {} for a kind of task whose rows have no single prediction, or are not those of the data.

    Args:
        evaluator: of the kind of task.
        split: rows, their texts and numbers.
        teacher: split → outputs; None if it was not scored.
        student: split → outputs.
        labels: names of the classes; None for numbers.
        has_texts: whether the texts go into the file.
    """
    if not split.texts or evaluator.row_scores(next(iter(student.values()))) is None:
        return {}
    parts = [
        {
            "split": [name] * len(rows),
            "row": split.row_numbers[name],
            **(_texts(split.texts[name]) if has_texts else {}),
            "tokens": rows["length"][:],
            **_scores(evaluator, None if teacher is None else teacher[name], student[name], labels),
        }
        for name, rows in split.evaluation.items()
    ]
    return {column: list(chain.from_iterable(part[column] for part in parts)) for column in parts[0]}


def _texts(rows: Any) -> dict[str, list[Any]]:
    return {name: rows[column][:] for name, column in zip(_TEXTS, rows.column_names, strict=False)}


def _scores(
    evaluator: Evaluator, teacher: Outputs | None, student: Outputs, labels: Sequence[str] | None
) -> dict[str, Any]:
    outputs = {"teacher": teacher, "student": student}
    models: dict[str, Any] = {role: evaluator.row_scores(one) for role, one in outputs.items() if one is not None}
    known = ~np.isnan(models["student"].errors)
    labelled = zip(evaluator.row_labels(student), known, strict=True)
    columns = {"label": [_named(label, labels) if is_known else None for label, is_known in labelled]}
    for role, scores in models.items():
        columns[role] = [_named(value, labels) for value in scores.predictions]
        columns[f"{role}_error"] = [None if np.isnan(error) else float(error) for error in scores.errors]
        if scores.probabilities is not None:
            columns[f"{role}_probability"] = scores.probabilities.tolist()
    return columns


def _named(value: Any, labels: Sequence[str] | None) -> Any:
    """Return the name of a class, those of several, or a number as it is."""
    if isinstance(value, tuple):
        return [labels[number] if labels else number for number in value]
    return labels[int(value)] if labels else value.item()
