"""Answers of an LLM, an API or an old system in the data's own columns, read as the outputs of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import ClassLabel, Dataset, List, Value

from distil_nlp.data.labels import LabelReader, is_missing
from distil_nlp.data.row_sets import ANSWERS
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import TaskKind

Form = Literal["probabilities", "logits", "scores", "label"]
LEAST_PROBABILITY = 1e-12
"""A probability below counts as this, so that its logarithm is finite."""
TOLERANCE = 0.02
"""How far the probabilities of a row may be from a sum of 1, as rounded ones are; they are divided by their sum."""
_KEY = "teacher.columns"


@dataclass(frozen=True)
class AnswerColumns:
    """The columns with the answers, and how they are read.

    Classes become logits log p, whose softmax is p; independent labels become log p − log (1 − p). A row with null (or
    NaN) in its columns has no answer.

    Attributes:
        form: `probabilities` or `logits` of the classes, `scores` for regression, or a `label`.
        columns: a column (of lists in the data's order of classes, of dicts by class name, of numbers for `scores`, of
            labels); or several, one for each class, in the data's order or by class name.
        confidence: for a label, its probability, or the column with it; the other classes share the rest equally.
        price: the column with what an answer cost, in any unit.
    """

    form: Form
    columns: str | Sequence[str] | Mapping[str, str]
    confidence: str | float = 0.9
    price: str | None = None

    @property
    def names(self) -> list[str]:
        """The names of the columns with answers."""
        columns = self.columns
        own = (
            [columns]
            if isinstance(columns, str)
            else [*(columns.values() if isinstance(columns, Mapping) else columns)]
        )
        return [*own, *([self.confidence] if self.form == "label" and isinstance(self.confidence, str) else [])]

    def with_answers(self, tokenised: Dataset, rows: Dataset, split: str, task: AnswerTask, needed: bool) -> Dataset:
        """Return tokenised rows with a column of the answers to the rows that they were made of.

        Args:
            needed: whether a split without any of the columns is a mistake; its rows have no answers otherwise.

        Raises:
            UserError: for columns that are missing or cannot be read.
        """
        missing = [name for name in self.names if name not in rows.column_names]
        if needed and self.price is not None and self.price not in rows.column_names:
            missing.append(self.price)
        if missing and (needed or len(missing) < len(self.names)):
            raise UserError(
                _KEY,
                f"columns {listed(self.names)} in {shown(split)}",
                listed(rows.column_names),
                why=f"{listed(missing)} cannot be read",
                fix="name the columns with the answers",
            )
        size = (len(rows), task.num_outputs)
        found = np.full(size, np.nan) if missing else self.logits(rows, split, task)
        return tokenised.add_column(ANSWERS, list(found.astype(np.float32)), feature=List(Value("float32")))

    def price_of(self, rows: Dataset) -> float:
        """Return the sum of the prices of rows; null is 0.

        Raises:
            UserError: for a value that is no number.
        """
        if self.price is None or self.price not in rows.column_names:
            return 0.0  # of training rows, `with_answers` says that it is missing
        values = [value for value in rows[self.price] if not is_missing(value)]
        wrong = [value for value in values if not _is_number(value)]
        if wrong:
            raise _wrong_values(f"{_KEY}.price", "finite numbers, or null", wrong, self.price, "they cannot be summed")
        return float(sum(values))

    def logits(self, rows: Dataset, split: str, task: AnswerTask) -> np.ndarray:
        """Return the answers as a teacher's outputs, (rows, classes) or (rows, 1), float64; NaN for no answer.

        Raises:
            UserError: for values that cannot be read so.
        """
        self._check_form(task)
        if self.form == "label":
            return np.log(np.maximum(self._of_labels(rows, split, task), LEAST_PROBABILITY))
        values = self._values(rows, split, task)
        if self.form != "probabilities":
            return values
        if task.kind.output == "labels":
            self._check_range(values, split)
            clipped = np.clip(values, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
            return np.log(clipped) - np.log1p(-clipped)
        self._check_range(values, split)
        self._check_sums(values, split)
        return np.log(np.maximum(values / values.sum(1, keepdims=True), LEAST_PROBABILITY))

    def _check_form(self, task: AnswerTask) -> None:
        fitting = {"distribution": ("probabilities", "logits", "label"), "labels": ("probabilities", "logits")}
        forms = fitting.get(task.kind.output, ("scores",))
        if self.form not in forms:
            raise UserError(
                _KEY,
                f"{' or '.join(forms)} for {task.kind.title}",
                self.form,
                why="the answers must be what the student's outputs are",
                fix=f"name the column with teacher.columns.{forms[0]}",
            )

    def _values(self, rows: Dataset, split: str, task: AnswerTask) -> np.ndarray:
        """Return the numbers of the columns, (rows, outputs), in the order of the outputs."""
        if isinstance(self.columns, str):
            given = [self._row(value, split, task) for value in rows[self.columns]]
        else:
            given = [list(values) for values in zip(*(rows[name] for name in self._ordered(task)), strict=True)]
        known = [row is not None and (not row or not all(map(_is_null, row))) for row in given]
        self._check_numbers([row or [] for row, is_known in zip(given, known, strict=True) if is_known], split, task)
        empty = [np.nan] * task.num_outputs
        values = [row if is_known else empty for row, is_known in zip(given, known, strict=True)]
        return np.array(values, dtype=np.float64).reshape(len(rows), task.num_outputs)

    def _row(self, value: Any, split: str, task: AnswerTask) -> list[Any] | None:
        """Return the answer of a row in the order of the outputs."""
        if isinstance(value, Mapping):
            if all(map(_is_null, value.values())):
                return None
            return [value[name] for name in self._by_name(dict(value), task, f"{quoted(self.columns)} of {split}")]
        if value is None or isinstance(value, list):
            return value
        if task.num_outputs == 1 and not isinstance(value, str):
            return [value]
        raise UserError(
            f"{_KEY}.{self.form}",
            f"a list of {task.num_outputs} numbers in each row of {quoted(self.columns)}",
            f"{quoted(value)} in {split}",
            why="it is not one number for each class",
            fix=f"{_by_class(task)}, or store lists (parquet or JSON lines)",
        )

    def _ordered(self, task: AnswerTask) -> list[str]:
        """Return the columns in the order of the outputs."""
        if isinstance(self.columns, Mapping):
            return [self.columns[name] for name in self._by_name(self.columns, task, f"{_KEY}.{self.form}")]
        if len(self.columns) != task.num_outputs:
            raise UserError(
                f"{_KEY}.{self.form}",
                f"a column for each of {task.num_outputs} classes",
                listed(self.columns),
                fix=_by_class(task),
            )
        return list(self.columns)

    def _by_name(self, given: Mapping[str, Any], task: AnswerTask, where: str) -> list[str]:
        """Return the class names in the data's order, once each of them is given and no other."""
        if set(given) != set(task.names):
            raise UserError(
                f"{_KEY}.{self.form}",
                f"the classes {listed(task.names)}",
                f"{listed([*given])} in {where}",
                why="an answer must have a number for each class, and for no other",
                fix="name the classes as the data does",
            )
        return list(task.names)

    def _check_numbers(self, given: Sequence[list[Any]], split: str, task: AnswerTask) -> None:
        key = f"{_KEY}.{self.form}"
        lengths = [row for row in given if len(row) != task.num_outputs]
        if lengths:
            raise _wrong_values(
                key, f"{task.num_outputs} numbers in a row, one for each of {listed(task.names)}", lengths, split,
                "there must be one for each class", "list all classes in the data's order, or name them",
            )  # fmt: skip
        partly = [row for row in given if any(map(_is_null, row))]
        if partly:
            raise _wrong_values(
                key, "a number for every class of a row, or null for all of them", partly, split,
                "a row with half of an answer is neither answered nor not", "fill them in, or leave all of them out",
            )  # fmt: skip
        wrong = [row for row in given if not all(map(_is_number, row))]
        if wrong:
            raise _wrong_values(key, "finite numbers", wrong, split, "they cannot be learnt", "null marks no answer")

    def _check_range(self, values: np.ndarray, split: str) -> None:
        outside = values[((values < 0) | (values > 1)).any(1)]
        if len(outside):
            is_percent = (outside >= 0).all() and abs(float(np.median(outside.sum(1))) - 100) < 3
            fix = "divide them by 100" if is_percent else "if they are logits, name them with teacher.columns.logits"
            why = "probabilities are neither negative nor above 1"
            raise _wrong_values(f"{_KEY}.probabilities", "numbers from 0 to 1", outside.tolist(), split, why, fix)

    def _check_sums(self, values: np.ndarray, split: str) -> None:
        off = np.abs(values.sum(1) - 1) > TOLERANCE
        if off.any():
            example = values[off][0]
            raise UserError(
                f"{_KEY}.probabilities",
                f"probabilities that sum to 1 in each row, within {TOLERANCE:g}",
                f"{off.sum():,} of {(~np.isnan(values).any(1)).sum():,} rows of {split} that do not, such as "
                f"{_shown_row(example)} with {example.sum():g}",
                why="they are no distribution over the classes",
                fix="give every class its probability, or divide each row by its sum; null marks no answer",
            )

    def _of_labels(self, rows: Dataset, split: str, task: AnswerTask) -> np.ndarray:
        """Return the probabilities that labels and their confidence stand for."""
        assert isinstance(self.columns, str)  # as the recipe's section has it
        values, feature = rows[self.columns][:], rows.features[self.columns]
        if isinstance(feature, ClassLabel) and task.labels:
            values = [value if is_missing(value) else feature.int2str(value) for value in values]
        values = [None if is_missing(value) else value for value in values]
        given = [value for value in values if value is not None]
        wrong = [v for v in given if isinstance(v, str) and v not in (task.labels or ())]
        wrong = wrong or task.reader.invalid(given, task.labels, task.num_outputs)
        if wrong:
            raise _wrong_values(
                f"{_KEY}.label", task.reader.expected(task.labels, task.num_outputs), wrong, split,
                "they are no classes of the data", "spell them as the data does; null marks no answer",
            )  # fmt: skip
        sure = self._confidences(rows, split)
        known = np.array([value is not None for value in values], dtype=bool) & ~np.isnan(sure)
        ids = np.array(task.reader.encode(values, task.labels, task.num_outputs), dtype=np.int64)
        found = np.repeat(((1 - sure) / (task.num_outputs - 1))[:, None], task.num_outputs, 1)
        found[np.arange(len(ids))[known], ids[known]] = sure[known]
        found[~known] = np.nan
        return found

    def _confidences(self, rows: Dataset, split: str) -> np.ndarray:
        """Return the probability of each row's label; NaN for null."""
        if not isinstance(self.confidence, str):
            return np.full(len(rows), float(self.confidence))
        given = rows[self.confidence][:]
        wrong = [value for value in given if not _is_null(value) and not (_is_number(value) and 0 < value <= 1)]
        if wrong:
            is_percent = all(_is_number(value) and 0 <= value <= 100 for value in wrong)
            fix = "divide them by 100" if is_percent else "null marks no answer"
            expected, why = "numbers above 0, at most 1", "a confidence is the probability of the label"
            raise _wrong_values(f"{_KEY}.confidence", expected, wrong, split, why, fix)
        return np.array([np.nan if _is_null(value) else value for value in given], dtype=np.float64)


@dataclass(frozen=True)
class AnswerTask:
    """The outputs that answers are to be read as.

    Attributes:
        kind: kind of task.
        labels: names of the classes in the data's order; None where they are numbers.
        num_outputs: number of outputs.
        reader: of labels.
    """

    kind: TaskKind
    labels: tuple[str, ...] | None
    num_outputs: int
    reader: LabelReader

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers."""
        return self.labels or tuple(map(str, range(self.num_outputs)))


def _by_class(task: AnswerTask) -> str:
    return f"name a column for each class: {{{', '.join(f'{name}: …' for name in task.names[:3])}}}"


def _is_null(value: Any) -> bool:
    return value is None or value != value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _shown_row(row: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in row)}]"


def _wrong_values(
    key: str, expected: str, wrong: Sequence[Any], split: str, why: str, fix: str = "null marks no answer"
) -> UserError:
    got = f"{quoted(wrong[0])} in {split} ({len(wrong):,} rows)"
    return UserError(key, expected, got, why=why, fix=fix)
