"""Data of multi-label classification: a set of labels for each row, none or several of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from distil_nlp.data import sequences
from distil_nlp.data.label_sets import with_label_sets
from distil_nlp.data.labels import LabelReader, Labels, is_missing
from distil_nlp.data.sequence_classification import is_whole, ordered_names
from distil_nlp.data.sequences import labelled_rows
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import Task

__all__ = ["LABELS", "LabelSets", "labelled_rows", "load"]

_SPARSE = 1000
"""Number of classes above which at least a tenth of them must occur in the data."""


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return tokenised rows and the collator that pads them; labels are a 0 or 1 for each class.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.

    Raises:
        UserError: see `with_label_sets` and `sequences.load`.
    """
    if not options.streaming:  # which no kind of task with labels takes
        splits, task = with_label_sets(splits, task, options)
    return sequences.load(splits, tokenizer, task, options, limits)


class LabelSets(LabelReader):
    """Reads lists of names or numbers; null marks a row without labels, whose encoded ones are NaN.

    An empty list is a row that is known to have none of the labels.
    """

    dtype, missing = np.float32, math.nan

    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return the names of the classes and their number, from the training split."""
        rows = splits[train_split]
        known = [one for one in _column(rows, task) if not is_missing(one)]
        if not known:
            raise UserError(
                "data.label_column",
                f"labels in {quoted(task.label_column)} of the training split",
                "unlabelled rows only" if task.label_column in rows.column_names else listed(rows.column_names),
                why="the number of classes is unknown",
                fix="name the column of lists with data.label_column, or columns of 0 and 1 with data.label_columns",
            )
        labels, num_labels = _classes(rows.features[task.label_column].feature, known, task)
        if num_labels < 2:
            raise UserError(
                "data.label_column",
                f"two labels or more in {train_split}",
                f"{num_labels}{f' ({labels[0]})' if labels else ''}",
                why="a single label is one class against another",
                fix="set data.task=classification with a column of two classes, or name the column of all labels",
            )
        _check_names(splits, task, labels)
        return labels, num_labels

    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return unknown names, and numbers that are not class ids."""
        found = chain.from_iterable(values)
        return [value for value in found if not _is_known(value, labels, num_labels)]

    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return the range of ids, and the class names if there are any."""
        named = f" ({listed(labels)})" if labels else ""
        return f"lists of labels from 0 to {num_labels - 1}{named}"

    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return a 0 or 1 for each class; NaN in unlabelled rows."""
        ids = {name: i for i, name in enumerate(labels or ())}
        encoded = self.unlabelled(len(values), num_labels)
        for row, one in zip(encoded, values, strict=True):
            if not is_missing(one):
                row[:] = 0
                row[[ids[value] if isinstance(value, str) else int(value) for value in one]] = 1
        return list(encoded)

    def feature(self, num_labels: int) -> Any:
        """Return a list of floats."""
        return List(Value(np.dtype(self.dtype).name))

    def unlabelled(self, count: int, num_labels: int) -> np.ndarray:
        """Return (rows, classes) of NaN."""
        return np.full((count, num_labels), self.missing, self.dtype)

    def strata(self, values: Sequence[Any]) -> list[Hashable]:
        """Return the rarest label of each row, so that each label has its share, as far as one group a row allows.

        The first step of iterative stratification (Sechidis et al. 2011), which starts with the rarest label.
        """
        counts = Counter(chain.from_iterable(set(one) for one in values if not is_missing(one)))
        return [None if is_missing(one) or not one else min(one, key=lambda label: counts[label]) for one in values]


LABELS = LabelSets()


def _column(rows: Dataset, task: Task) -> list[Any]:
    return rows[task.label_column][:] if task.label_column in rows.column_names else []


def _classes(feature: Any, known: Sequence[Sequence[Any]], task: Task) -> tuple[Labels, int]:
    """Return class names and their number: from ClassLabel, or from the values."""
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
        return None if names == tuple(map(str, range(len(names)))) else names, len(names)
    values = set(chain.from_iterable(known))
    if values and all(isinstance(value, str) for value in values):
        names = ordered_names(values)
        return names, len(names)
    return None, _count_ids(values, task)


def _count_ids(values: set[Any], task: Task) -> int:
    """Return the number of classes that ids from 0 on imply."""
    numbers = [int(value) for value in values if is_whole(value)]
    count = max(numbers, default=-1) + 1
    is_dense = count <= max(_SPARSE, 10 * len(values))
    if len(numbers) < len(values) or min(numbers, default=0) < 0 or not is_dense:
        raise UserError(
            "data.label_column",
            "lists of names, or of classes numbered from 0 on",
            f"{listed(sorted(map(str, values))[:5])} … in {quoted(task.label_column)}",
            why="these are not class ids",
            fix="give names, or number the classes from 0 on",
        )
    return count


def _is_known(value: Any, labels: Labels, num_labels: int) -> bool:
    if isinstance(value, str):
        return value in (labels or ())
    return is_whole(value) and 0 <= value < num_labels


def _check_names(splits: Mapping[str, Dataset], task: Task, labels: Labels) -> None:
    """Raise UserError if a split has different classes, or the same ones in a different order."""
    for split, rows in splits.items():
        feature = getattr(rows.features.get(task.label_column), "feature", None)
        if labels and isinstance(feature, ClassLabel) and tuple(feature.names) != labels:
            raise UserError(
                "data.label_column",
                f"the labels {listed(labels)} in {shown(split)} too, in this order",
                listed(feature.names),
                why="scores would be computed for the wrong labels",
                fix="cast the column",
            )
