"""Data of sequence classification: class labels, by id or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value

from distil_nlp.data.labels import LabelReader, Labels, is_missing
from distil_nlp.data.sequences import labelled_rows, load
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import GLUE, OTHER_KINDS_REMEDY, Task

__all__ = ["LABELS", "ClassLabels", "is_whole", "labelled_rows", "load", "ordered_names"]

_FEW_ROWS = 50
"""Number of training rows below which all may have classes of their own."""
_SPARSE = 1000
"""Number of classes above which at least a tenth of them must occur in the data."""


class ClassLabels(LabelReader):
    """Reads class ids, names in a `ClassLabel`, or plain strings; −100 marks a row without a label."""

    dtype, missing = np.int64, -100

    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return class names and their number, the same in all splits."""
        labels, num_labels = _classes(splits[train_split], task)
        if not isinstance(splits[train_split].features.get(task.label_column), ClassLabel):
            _check_repeated(splits, train_split, task)
            _check_from_zero(splits, task, labels)
        if num_labels < 2:
            raise UserError(
                "data.label_column",
                f"two classes or more in {train_split}",
                f"one{f' ({labels[0]})' if labels else ''}",
                why="there is nothing to classify",
                fix="name the label column, or store it as a ClassLabel with all classes",
            )
        _check_names(splits, task, labels)
        return labels, num_labels

    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return unknown class names, and numbers that are not class ids."""
        if labels and values and isinstance(values[0], str):
            return [value for value in values if value not in labels]
        return [value for value in values if not is_whole(value) or not 0 <= value < num_labels]

    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return the range of ids, and the class names if there are any."""
        named = f" ({listed(labels)})" if labels else ""
        return f"labels from 0 to {num_labels - 1}{named}"

    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return class ids."""
        ids = {name: i for i, name in enumerate(labels or ())}
        return [
            self.missing if is_missing(value) else ids[value] if isinstance(value, str) else int(value)
            for value in values
        ]


LABELS = ClassLabels()


def _classes(rows: Dataset, task: Task) -> tuple[Labels, int]:
    """Return class names and their number: from the task table, from ClassLabel, or from the values."""
    feature = rows.features.get(task.label_column)
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
        if task.name in GLUE and names != task.labels:
            raise UserError(
                "data",
                f"the labels {', '.join(task.labels)} of {task.name} in this order",
                listed(names),
                why="classes would be mixed up",
                fix="cast the label column to GLUE's order",
            )
        return names, len(names)
    if task.name in GLUE:
        return task.labels, len(task.labels)
    if feature is not None and not isinstance(feature, Value):
        raise UserError(
            "data.label_column",
            "one label a row",
            f"{shown(feature)} in {quoted(task.label_column)}",
            why="a row has one class in this kind of task",
            fix=f"set data.task=multilabel for several labels a row, or name a column of classes; {OTHER_KINDS_REMEDY}",
        )
    values = {value for value in rows[task.label_column] if not is_missing(value)} if feature is not None else set()
    if not values:
        raise UserError(
            "data.label_column",
            f"labels in {quoted(task.label_column)} of the training split",
            "unlabelled rows only" if feature is not None else f"no such column, but {listed(rows.column_names)}",
            why="the number of classes is unknown",
            fix="name the label column (−100, NaN or null mark an unlabelled row), or store it as a ClassLabel",
        )
    if all(isinstance(value, str) for value in values):
        return ordered_names(values), len(values)
    return None, _count_ids(values, task)


def _count_ids(values: set[Any], task: Task) -> int:
    """Return the number of classes that ids from 0 on imply."""
    if not all(is_whole(value) for value in values):
        examples = sorted(map(str, values))[:5]
        raise UserError(
            "data.label_column",
            "whole numbers or names of classes",
            f"{listed(examples)} …",
            why="these are not class ids",
            fix="use data.task=regression for numbers",
        )
    if min(values) < 0:
        numbers = sorted(map(int, values))
        raise UserError(
            "data.label_column",
            f"classes numbered from 0 on ({_range(0, len(values) - 1)})",
            f"{', '.join(map(str, numbers[:5]))}{' …' if len(numbers) > 5 else ''} in {task.label_column!r}",
            why="a negative number is no class",
            fix="renumber them, give names, or write −100 or null for a row without a label",
        )
    num_labels = max(int(max(values)) + 1, 1)
    if num_labels > max(_SPARSE, 10 * len(values)):
        raise UserError(
            "data.label_column",
            "classes numbered from 0 on",
            f"{len(values)} of them up to {num_labels - 1} in {quoted(task.label_column)}",
            why="the models would need an output for each number up to the largest",
            fix=f"number them from 0 to {len(values) - 1}, or give names",
        )
    return num_labels


def _check_from_zero(splits: Mapping[str, Dataset], task: Task, labels: Labels) -> None:
    """Raise UserError for classes that are numbered from 1 on in every split: class 0 would be one that nothing has."""
    if labels is not None or task.name in GLUE:
        return
    values = {int(value) for rows in splits.values() for value in _known_labels(rows, task) if is_whole(value)}
    values -= {-1}  # the hidden labels of a test split
    if len(values) > 1 and values == set(range(1, len(values) + 1)):
        raise UserError(
            "data.label_column",
            f"classes numbered from 0 on ({_range(0, len(values) - 1)})",
            f"{_range(1, len(values))} in {task.label_column!r}",
            why="no row has class 0, and each class would be compared with the teacher's next one",
            fix="take 1 from each, give names, or store the column as a ClassLabel if there is a class 0",
        )


def _check_repeated(splits: Mapping[str, Dataset], train_split: str, task: Task) -> None:
    """Raise UserError for a column in which each row has another value, in every split: ids or texts, not classes."""
    columns = [_known_labels(rows, task) for rows in splits.values()]
    count = len(_known_labels(splits[train_split], task))
    if count >= _FEW_ROWS and all(len(set(map(str, values))) == len(values) for values in columns):
        raise UserError(
            "data.label_column",
            f"classes in {task.label_column!r}",
            f"another value in each of {count:,} rows of {train_split}",
            why="ids and texts are no classes",
            fix=f"name the column of classes ({', '.join(splits[train_split].column_names)})",
        )


def _known_labels(rows: Dataset, task: Task) -> list[Any]:
    values = rows[task.label_column] if task.label_column in rows.column_names else []
    return [value for value in values if not is_missing(value)]


def _range(first: int, last: int) -> str:
    """Return a list of numbers, or its ends."""
    numbers = list(map(str, range(first, last + 1)))
    return ", ".join(numbers) if len(numbers) <= 6 else f"{first}, {first + 1}, … {last}"


def ordered_names(values: set[str]) -> tuple[str, ...]:
    """Return names in alphabetic order, or in numeric order if all are numbers."""
    stripped = {value.strip() for value in values}
    if "" in stripped or len(stripped) < len(values):
        examples = ", ".join(map(quoted, sorted(values)[:5]))
        raise UserError(
            "data.label_column",
            "names of classes",
            examples,
            why="blank names, or names that differ only by spaces, would be classes of their own",
            fix="strip them; null marks an unlabelled row",
        )
    spellings: dict[str, set[str]] = {}
    for value in values:
        spellings.setdefault(value.casefold(), set()).add(value)
    several = sorted(value for same in spellings.values() if len(same) > 1 for value in same)
    if several:
        raise UserError(
            "data.label_column",
            "one spelling of each class",
            ", ".join(map(repr, several[:6])),
            why="they would be classes of their own",
            fix="spell them alike",
        )
    if all(value.isdecimal() for value in values):
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    return tuple(sorted(values))


def is_whole(value: Any) -> bool:
    """Return True for a whole number, also as a float: a column with an empty cell is read as floats."""
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _check_names(splits: Mapping[str, Dataset], task: Task, labels: Labels) -> None:
    """Raise UserError if a split has different classes, or the same ones in a different order."""
    for split, rows in splits.items():
        feature = rows.features.get(task.label_column)
        if isinstance(feature, ClassLabel) and tuple(feature.names) != labels:
            raise UserError(
                "data.label_column",
                f"the classes {listed(labels or ())} in {shown(split)} too, in this order",
                listed(feature.names),
                why="scores would be computed for the wrong classes",
                fix="cast the column",
            )
