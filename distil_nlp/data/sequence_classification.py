"""Rows of a task → tokens and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.splits import Split, limit_rows, named_split, split_off
from distil_nlp.data.tokenization import tokenise, trim_long_pairs, word_ids
from distil_nlp.errors import UserError
from distil_nlp.tasks.base import Kind, Task
from distil_nlp.tasks.glue import GLUE

_LARGEST_NUMBER = 1e18
"""Of a regression: its square must be a float32."""
_SPARSE = 1000
"""Classes from which on most of them must occur in the data."""


@dataclass
class TaskData:
    """A task's splits, tokenised, and what its labels are.

    Attributes:
        task: the task's name in the metrics table (a GLUE task, `classification` or `regression`).
        labels: class names in the order of their ids; None where the data does not name them.
    """

    task: str
    kind: Kind
    labels: tuple[str, ...] | None
    num_labels: int
    split: Split


def load_task(
    splits: Any,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    train_split: str = "train",
    evaluation_splits: list[str] | None = None,
    max_length: int = 128,
    selection_share: float | None = None,
    max_train_rows: int | None = None,
    max_evaluation_rows: int | None = None,
    num_proc: int | None = None,
    seed: int = 42,
    words: bool = False,
) -> TaskData:
    """Tokenised rows with `input_ids`, `length` and `labels`; rows without a label get −100 (classes) or NaN.

    Args:
        task: from the table `GLUE`, or made of the recipe's columns (`labels=()` is regression).
        evaluation_splits: the task's own, where they exist, unless named here.
        selection_share: carved off the training rows if given; `validation` is used instead where scores are
            reported on another split.
        words: whether training rows have `word_ids` too: which word of its text a token belongs to, −1 for special
            tokens.

    Raises:
        UserError: for missing splits or columns, an empty split, labels that are no numbers or out of range.
    """
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"expected a tokenizer with a padding token / got {type(tokenizer).__name__} without one / rows of unlike "
            "length cannot share a batch / set pad_token in the teacher's tokenizer_config.json"
        )
    names = _evaluation_splits(splits, task, train_split, evaluation_splits)
    chosen = {name: splits[name] for name in (train_split, *names)}
    uses_validation = bool(selection_share) and "validation" in splits and "validation" not in chosen
    if uses_validation:
        chosen["validation"] = splits["validation"]
    for name, rows in chosen.items():
        _check_columns(rows, task, name, needs_labels=name != train_split)
    labels, num_labels = _classes(chosen[train_split], task)
    if task.kind != "regression" and num_labels < 2:
        raise UserError(
            f"data.label_column: expected two classes or more in {train_split} / got one / there is nothing to tell "
            "apart / name the label column, or store it as a ClassLabel with all classes"
        )
    _check_label_names(chosen, task, labels)
    seen: dict[str, Dataset] = {}
    limits = {name: max_evaluation_rows for name in names} | {train_split: max_train_rows}
    for name, rows in chosen.items():
        rows = limit_rows(rows, limits.get(name), seed)
        _check_labels(rows, task, labels, num_labels, name, complete=name != train_split)
        with_words = words and name == train_split
        seen[name] = _tokenise(rows, tokenizer, task, labels, max_length, num_proc, with_words)
    train, selection = seen[train_split], seen["validation"] if uses_validation else None
    if selection_share and selection is None:
        train, selection = split_off(train, selection_share, seed, "choosing the best checkpoint")
    split = Split(train, selection, {name: seen[name] for name in names})
    metric = task.name if task.name in GLUE else task.kind
    return TaskData(metric, task.kind, labels, num_labels, split)


def labelled_rows(rows: Dataset) -> Dataset:
    """The tokenised rows that have a label; the rows themselves where all have one."""
    labels = np.asarray(rows["labels"], dtype=np.float64)
    known = ~np.isnan(labels) & (labels != -100)
    return rows if known.all() else rows.select(np.flatnonzero(known))


def unlabelled_rows(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, split: str, *, max_length: int = 128
) -> Dataset:
    """A split whose labels are not public, such as GLUE's `test`, tokenised like the others; whatever stands in its
    label column is not read.

    Raises:
        UserError: for missing text columns, or an empty split.
    """
    _check_columns(rows, task, split, needs_labels=False)
    return _tokenise(rows.select_columns(list(task.text_columns)), tokenizer, task, None, max_length, None)


def _evaluation_splits(splits: Any, task: Task, train: str, named: list[str] | None) -> list[str]:
    """The splits that scores are reported on: those asked for, the task's own, or test, or validation."""
    for name in (train, *(named or ())):
        named_split(splits, name)
    if named:
        return named
    own = [name for name in task.evaluation_splits if name in splits]
    if not own:
        raise UserError(
            f"data: expected a labelled split to report scores on ({', '.join(task.evaluation_splits)}) / got "
            f"{', '.join(splits)} / there would be no score / name one with data.evaluation_splits"
        )
    return own if task.name in GLUE else own[:1]


def _check_columns(rows: Dataset, task: Task, split: str, needs_labels: bool) -> None:
    """Text columns are there and hold text; labels where scores come from, in the task's order."""
    missing = [name for name in task.text_columns if name not in rows.column_names]
    if missing:
        raise UserError(
            f"data.text_columns: expected columns {', '.join(task.text_columns)} / got {', '.join(rows.column_names)} "
            f"in {split} / {', '.join(missing)} cannot be read / name the dataset's own text columns"
        )
    if len(rows) == 0:
        raise UserError(f"data: expected rows in {split} / got none / there is nothing to learn from or to score")
    if not any(text and not str(text).isspace() for name in task.text_columns for text in rows[name]):
        raise UserError(
            f"data.text_columns: expected text in {', '.join(task.text_columns)} of {split} / got blank rows only / "
            "there is nothing to learn from or to score / name the column of text"
        )
    if needs_labels and task.label_column not in rows.column_names:
        raise UserError(
            f"data.label_column: expected a column {task.label_column!r} in {split} / got "
            f"{', '.join(rows.column_names)} / scores need labels / name the label column"
        )


def _classes(rows: Dataset, task: Task) -> tuple[tuple[str, ...] | None, int]:
    """Class names and their number: from the task table, from ClassLabel, or from the values."""
    feature = rows.features.get(task.label_column)
    if task.kind == "regression":
        return None, 1
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
        if task.name in GLUE and names != task.labels:
            raise UserError(
                f"data: expected the labels {', '.join(task.labels)} of {task.name} in this order / "
                f"got {', '.join(names)} / classes would be mixed up / cast the label column to GLUE's order"
            )
        return names, len(names)
    if task.name in GLUE:
        return task.labels, len(task.labels)
    if feature is not None and not isinstance(feature, Value):
        raise UserError(
            f"data.label_column: expected one label a row / got {feature} in {task.label_column!r} / several labels a "
            "row are not supported / name a column of classes or numbers"
        )
    values = {value for value in rows[task.label_column] if not _is_missing(value)} if feature is not None else set()
    if not values:
        raise UserError(
            f"data.label_column: expected labels in {task.label_column!r} of the training split / got "
            f"{'no such column, but ' + ', '.join(rows.column_names) if feature is None else 'unlabelled rows only'} / "
            "the number of classes is unknown / name the label column (−100, NaN or null mark an unlabelled row), or "
            "store it as a ClassLabel"
        )
    if all(isinstance(value, str) for value in values):
        return _class_names(values), len(values)
    if not all(_is_whole(value) for value in values):
        some = sorted(map(str, values))[:5]
        raise UserError(
            f"data.label_column: expected whole numbers or names of classes / got {', '.join(some)} … / these are "
            "no classes / use data.task=regression for numbers"
        )
    num_labels = max(int(max(values)) + 1, 1)
    if num_labels > max(_SPARSE, 10 * len(values)):
        raise UserError(
            f"data.label_column: expected classes numbered from 0 on / got {len(values)} of them up to "
            f"{num_labels - 1} in {task.label_column!r} / the models would need an output for every number / number "
            f"them from 0 to {len(values) - 1}, or give names"
        )
    return None, num_labels


def _class_names(values: set[str]) -> tuple[str, ...]:
    """In alphabetic order, or that of the numbers they are."""
    stripped = {value.strip() for value in values}
    if "" in stripped or len(stripped) < len(values):
        some = ", ".join(map(repr, sorted(values)[:5]))
        raise UserError(
            f"data.label_column: expected names of classes / got {some} / blank ones, or such as differ by spaces "
            "alone, would be classes of their own / strip them; null marks an unlabelled row"
        )
    if all(value.isdecimal() for value in values):
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    return tuple(sorted(values))


def _is_whole(value: Any) -> bool:
    """Whether a label is a class number; a column with an empty cell comes as floats."""
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _check_label_names(splits: dict[str, Dataset], task: Task, labels: tuple[str, ...] | None) -> None:
    """Splits that name their classes name them alike, in one order."""
    if task.kind == "regression":
        return
    for split, rows in splits.items():
        feature = rows.features.get(task.label_column)
        if isinstance(feature, ClassLabel) and tuple(feature.names) != labels:
            raise UserError(
                f"data.label_column: expected the classes {', '.join(labels or ())} in {split} too, in this order / "
                f"got {', '.join(feature.names)} / scores would be those of the wrong classes / cast the column"
            )


def _is_missing(value: Any) -> bool:
    return value is None or value == -100 or (isinstance(value, float) and math.isnan(value))


def _check_labels(
    rows: Dataset, task: Task, labels: tuple[str, ...] | None, num_labels: int, split: str, complete: bool
) -> None:
    """Labels are in range; splits that scores come from (`complete`) have one in every row."""
    if task.label_column not in rows.column_names:
        return
    values = [value for value in rows[task.label_column] if not _is_missing(value)]
    if complete and len(values) < len(rows):
        raise UserError(
            f"data: expected every row of {split} labelled / got {len(rows) - len(values)} of {len(rows)} without a "
            "label / scores need labels / name another split with data.evaluation_splits"
        )
    if task.kind == "regression":
        bad = [value for value in values if not (isinstance(value, (int, float)) and abs(value) < _LARGEST_NUMBER)]
    elif labels and values and isinstance(values[0], str):
        bad = [value for value in values if value not in labels]
    else:
        bad = [value for value in values if not _is_whole(value) or not 0 <= value < num_labels]
    if bad:
        shown = ", ".join(map(repr, bad[:3]))
        wanted = f"labels from 0 to {num_labels - 1}"
        if task.kind == "regression":
            wanted = f"numbers below {_LARGEST_NUMBER:g}"
        if labels:
            wanted += f" ({', '.join(labels[:10])}{' …' if len(labels) > 10 else ''})"
        raise UserError(
            f"data.{task.label_column}: expected {wanted} / got {shown} in {split} ({len(bad)} rows) / they "
            "teach nothing that can be learnt / mend those rows; −100 or null marks an unlabelled one"
        )


def _tokenise(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    labels: tuple[str, ...] | None,
    max_length: int,
    num_proc: int | None,
    words: bool = False,
) -> Dataset:
    regression = task.kind == "regression"
    features = {name: List(Value("int32")) for name in tokenizer.model_input_names}
    features |= {"length": Value("int32"), "labels": Value("float32" if regression else "int64")}
    features |= {"word_ids": List(Value("int32"))} if words else {}
    return rows.map(
        _encode,
        batched=True,
        remove_columns=rows.column_names,
        num_proc=num_proc if len(rows) > 5000 else None,
        features=Features(features),
        fn_kwargs=dict(tokenizer=tokenizer, task=task, labels=labels, max_length=max_length, words=words),
        desc="tokenising",
    )


def _encode(
    batch: dict[str, list], tokenizer: PreTrainedTokenizerBase, task: Task, labels: Any, max_length: int, words: bool
) -> dict[str, Any]:
    texts = {column: [text if text is not None else "" for text in batch[column]] for column in task.text_columns}
    if len(texts) == 2:
        texts = dict(zip(texts, trim_long_pairs(tokenizer, *texts.values(), max_length), strict=True))
    tokens = tokenise(tokenizer, texts, truncation=True, max_length=max_length)
    encoded = dict(tokens)
    count = len(encoded["input_ids"])
    given = batch.get(task.label_column, [None] * count)
    missing = math.nan if task.kind == "regression" else -100
    ids = {name: i for i, name in enumerate(labels or ())}
    number = float if task.kind == "regression" else int
    encoded["labels"] = [missing if _is_missing(v) else ids[v] if isinstance(v, str) else number(v) for v in given]
    encoded["length"] = [len(one) for one in encoded["input_ids"]]
    if words:
        encoded["word_ids"] = [word_ids(tokens, i, length) for i, length in enumerate(encoded["length"])]
    names = (*tokenizer.model_input_names, "length", "labels", *(["word_ids"] if words else []))
    return {name: encoded[name] for name in names}


@dataclass
class TaskCollator:
    """Pads rows to the longest of the batch, or on to a multiple, so that batches have few shapes; labels as int64
    (classes) or float32 (regression)."""

    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{k: v for k, v in one.items() if k in self.tokenizer.model_input_names} for one in features]
        batch = dict(self.tokenizer.pad(inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"))
        if "labels" in features[0]:
            kind = np.float32 if self.kind == "regression" else np.int64
            batch["labels"] = torch.from_numpy(np.array([one["labels"] for one in features], dtype=kind))
        return batch
