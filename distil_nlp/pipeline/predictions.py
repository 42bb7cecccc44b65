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
    if not split.texts:
        return {}
    parts = []
    for name, rows in split.evaluation.items():
        outputs = (
            {"student": student[name]} if teacher is None else {"teacher": teacher[name], "student": student[name]}
        )
        scores: dict[str, Any] = {role: evaluator.row_scores(one) for role, one in outputs.items()}
        if None in scores.values():
            return {}
        parts.append(
            _row_columns(evaluator, split, name, student[name], has_texts)
            | _score_columns(scores, evaluator.row_labels(student[name], rows), labels)
        )
    return {column: list(chain.from_iterable(part[column] for part in parts)) for column in parts[0]}


def _row_columns(evaluator: Evaluator, split: Split, name: str, outputs: Outputs, has_texts: bool) -> dict[str, Any]:
    """Return what a row is: its place in the data, its texts, and the number of its tokens."""
    rows, texts = split.evaluation[name], split.texts[name]
    own = evaluator.own_rows(rows, texts)
    numbers = np.asarray(split.row_numbers[name])[own]
    columns = {"split": [name] * len(own), "row": numbers.tolist()}
    if has_texts:
        shown = texts.select(own)
        columns |= {column: shown[of][:] for column, of in zip(_TEXTS, shown.column_names, strict=False)}
    return columns | {"tokens": evaluator.row_lengths(outputs, np.asarray(rows["length"])).tolist()}


def _score_columns(models: Mapping[str, Any], true: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return label, predictions, errors and probabilities."""
    known = ~np.isnan(models["student"].errors)
    labelled = zip(true, known, strict=True)
    columns = {"label": [_named(label, labels) if is_known else None for label, is_known in labelled]}
    for role, scores in models.items():
        columns[role] = [_named(value, labels) for value in scores.predictions]
        columns[f"{role}_error"] = [None if np.isnan(error) else float(error) for error in scores.errors]
        if scores.probabilities is not None:
            columns[f"{role}_probability"] = scores.probabilities.tolist()
    return columns


def _named(value: Any, labels: Sequence[str] | None) -> Any:
    """Return the name of a class, those of several, a text, or a number as it is."""
    if isinstance(value, tuple):
        return [None if number < 0 else labels[number] if labels else number for number in value]
    if isinstance(value, str):
        return str(value)
    return labels[int(value)] if labels else value.item()
