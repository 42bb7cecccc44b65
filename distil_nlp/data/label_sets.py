"""Columns of several labels a row, in the forms that data has them in, as one column of lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, List, Value

from distil_nlp.data.labels import is_missing
from distil_nlp.data.splits import named_split
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import Task

_SEPARATORS = ("|", ";", ",")
Sets = list[list[Any] | None]
"""The labels of each row; None for an unlabelled one."""


def with_label_sets(splits: Any, task: Task, options: Any) -> tuple[DatasetDict, Task]:
    """Return the splits with a column of lists of labels, and the task that reads it.

    Lists of names or numbers stay as they are. Several columns of 0 and 1, strings of labels between separators, and
    lists of a 0 or 1 for each class become lists. Splits that the run does not read stay as they are.

    Args:
        splits: as `load_splits` gives them.
        task: its label column is that of lists or strings.
        options: a recipe's section `data`, by attributes.

    Raises:
        UserError: for columns that cannot be read so.
    """
    train, columns = named_split(splits, options.train_split), options.label_columns
    if columns:
        task = dataclasses.replace(task, label_column=", ".join(columns))
        read: Callable[[Dataset, str], Dataset] = _Columns(tuple(columns), task.label_column)
    elif task.label_column not in train.column_names:
        return splits, task  # which loading says
    elif hasattr(train.features[task.label_column], "feature"):
        read = _Lists.of(train, task.label_column)
    else:
        read = _Strings(task.label_column, _checked_separator(train, task.label_column, options.label_separator))
    read_splits = {options.train_split, "validation", *(options.evaluation_splits or task.evaluation_splits)}
    parts = {name: read(rows, name) if name in read_splits else rows for name, rows in splits.items()}
    return DatasetDict(parts), task


def _with_column(rows: Dataset, name: str, sets: Sets, label: Any) -> Dataset:
    rows = rows.remove_columns([name]) if name in rows.column_names else rows
    return rows.add_column(name, sets, feature=List(label))


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Columns of 0 and 1; null in all of them marks an unlabelled row."""

    columns: tuple[str, ...]
    name: str

    def __call__(self, rows: Dataset, split: str) -> Dataset:
        missing = [name for name in self.columns if name not in rows.column_names]
        if missing:
            raise UserError(
                "data.label_columns",
                f"columns {listed(self.columns)}",
                f"{listed(rows.column_names)} in {shown(split)}",
                why=f"{listed(missing)} cannot be read",
                fix="name the columns of 0 and 1, one for each label",
            )
        for name in self.columns:
            _check_flags(rows[name][:], name, split)
        values = [*zip(*(rows[name][:] for name in self.columns), strict=True)]
        partly = sum(0 < sum(map(is_missing, row)) < len(row) for row in values)
        if partly:
            raise UserError(
                "data.label_columns",
                "0 or 1 in all label columns of a row, or null in all of them",
                f"null in some of them in {partly:,} rows of {split}",
                why="a row with half of its labels is neither labelled nor unlabelled",
                fix="fill them in, or leave all of them out in such rows",
            )
        sets = [None if is_missing(row[0]) else [i for i, flag in enumerate(row) if flag] for row in values]
        return _with_column(rows, self.name, sets, ClassLabel(names=list(self.columns)))


def _check_flags(values: Sequence[Any], column: str, split: str) -> None:
    wrong = [value for value in values if not is_missing(value) and not _is_flag(value)]
    if wrong:
        hidden = all(str(value) in ("-1", "-1.0") for value in wrong)
        raise UserError(
            "data.label_columns",
            f"0 or 1 in {quoted(column)}",
            f"{', '.join(map(quoted, wrong[:3]))} in {split} ({len(wrong):,} rows)",
            why="they do not say whether a row has the label",
            fix="write null for a row without labels, or name another split with data.evaluation_splits"
            if hidden
            else "name the columns of 0 and 1; for a column of names or lists set data.label_column",
        )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | int | float) and value in (0, 1)


@dataclasses.dataclass(frozen=True)
class _Lists:
    """A column of lists; `num_flags` is their length where they are a 0 or 1 for each class, else None."""

    name: str
    num_flags: int | None

    @classmethod
    def of(cls, train: Dataset, name: str) -> _Lists:
        """Return the lists of the training rows, which tell the form."""
        known = [value for value in train[name] if not is_missing(value)]
        return cls(name, len(known[0]) if known and _are_flags(known) else None)

    def __call__(self, rows: Dataset, split: str) -> Dataset:
        if self.name not in rows.column_names or self.num_flags is None:
            return rows
        values = rows[self.name][:]
        wrong = [one for one in values if not is_missing(one) and not self._fits(one)]
        if wrong:
            raise UserError(
                f"data.{self.name}",
                f"{self.num_flags} numbers in a row, 0 or 1, as in the first rows of training",
                f"{quoted(wrong[0])} in {split} ({len(wrong):,} rows)",
                why="it does not say which labels a row has",
                fix="give each row a 0 or 1 for each class, or lists of the names of its labels",
            )
        sets = [None if is_missing(one) else [i for i, flag in enumerate(one) if flag] for one in values]
        return _with_column(rows, self.name, sets, ClassLabel(num_classes=self.num_flags))

    def _fits(self, one: Any) -> bool:
        return not isinstance(one, str) and len(one) == self.num_flags and all(map(_is_flag, one))


def _are_flags(known: Sequence[Sequence[Any]]) -> bool:
    """Return whether lists are a 0 or 1 for each class, of one length, rather than numbers of classes.

    They are floats, or repeat a number, which a list of the labels of a row does not.
    """
    if len({len(one) for one in known}) > 1 or len(known[0]) < 2:
        return False
    is_float = any(isinstance(value, float) for one in known for value in one)
    are_binary = all(_is_flag(value) for one in known for value in one)
    return are_binary and (is_float or any(len(set(one)) < len(one) for one in known))


@dataclasses.dataclass(frozen=True)
class _Strings:
    """A column of strings of labels between separators; one of nothing but a separator is a row with no label."""

    name: str
    separator: str

    def __call__(self, rows: Dataset, split: str) -> Dataset:
        if self.name not in rows.column_names:
            return rows
        sets = [None if is_missing(text) else self._labels(str(text)) for text in rows[self.name]]
        return _with_column(rows, self.name, sets, Value("string"))

    def _labels(self, text: str) -> list[str]:
        return [label.strip() for label in text.split(self.separator) if label.strip()]


def _checked_separator(train: Dataset, column: str, separator: str | None) -> str:
    """Return the separator of a column of strings.

    Raises:
        UserError: if none is named, or the column has something else than strings.
    """
    feature = train.features[column]
    is_text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    if is_text and separator:
        return separator
    texts = [str(value) for value in train[column] if not is_missing(value)]
    found = next((one for one in _SEPARATORS if any(one in text for text in texts)), None)
    several = f"set data.label_separator={quoted(found)}" if is_text and found else "store lists of labels"
    raise UserError(
        "data.label_column",
        "a list of labels in each row",
        f"{shown(feature)} in {quoted(column)}" + (f", such as {quoted(texts[0])}" if texts else ""),
        why="it does not say where a label ends" if is_text and found else "a row would have one label at most",
        fix=f"{several}, or name columns of 0 and 1 with data.label_columns; for one class a row set "
        "data.task=classification",
    )
