"""Labelled texts or pairs of texts, for every kind of label: splits → tokenised rows and their collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.answers import AnswerColumns, AnswerTask
from distil_nlp.data.column_checks import check_columns, check_label_values
from distil_nlp.data.encodings import batch_of, further_encodings
from distil_nlp.data.held_out_rows import hold_out_rows
from distil_nlp.data.kinds import data_module
from distil_nlp.data.labels import LabelReader, is_missing
from distil_nlp.data.overlap import scored_splits, training_rows_among
from distil_nlp.data.shares import keep_labels, keep_share
from distil_nlp.data.splits import Split, limit_rows, named_split, row_numbers, split_off, without_counts
from distil_nlp.data.tokenised_rows import RowTokenizers, check_padding, tokenised_rows
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.errors import UserError, listed
from distil_nlp.tasks import CUSTOM_TASKS, GLUE, Head, Task, TaskKind, task_kind
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

SELECTION_ROWS = "rows to choose a checkpoint by"
"""Name of the rows that are split off the training rows, which no split of a dataset has."""


@dataclass
class TaskData:
    """The tokenised splits of a task, and its labels.

    Attributes:
        task: the task's name in the metrics table (a GLUE task, `classification` or `regression`).
        labels: class names in the order of their ids; None if the data does not name its classes.
    """

    task: str
    kind: TaskKind
    labels: tuple[str, ...] | None
    num_labels: int
    split: Split

    @property
    def head(self) -> Head:
        """The classification or regression head for these labels."""
        return Head(self.kind, self.labels, self.num_labels)


def label_reader(kind: TaskKind | str) -> LabelReader:
    """Return the reader of the label column for a kind of task."""
    return data_module(kind).LABELS


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
    share: float = 1.0,
    labelled_share: float = 1.0,
    max_evaluation_rows: int | None = None,
    num_proc: int | None = None,
    seed: int = 42,
    words: bool = False,
    answers: AnswerColumns | None = None,
    encodings: Mapping[str, PreTrainedTokenizerBase] | None = None,
    reader: LabelReader | None = None,
) -> TaskData:
    """Return tokenised rows with `input_ids`, `length` and `labels`; unlabelled rows get −100 (classes) or NaN.

    Args:
        task: from the table `GLUE`, or built from the recipe's columns (`labels=()` is regression).
        evaluation_splits: by default the task's own splits that exist.
        selection_share: fraction of the training rows that is split off for selection, if given; `validation` is used
            instead if scores are reported on another split.
        share: fraction of the training rows that is kept, see `keep_share`.
        labelled_share: fraction of their labels that is kept, of those that are left to train on.
        words: True for training rows with `word_ids` too: the number of the word in its text that a token belongs to,
            −1 for special tokens.
        answers: columns of a teacher's answers, which the rows then have as `teacher_logits`.
        encodings: tokenizers of further encodings of each row, by the encodings' names. Texts are then cut where the
            first of all tokenizers would truncate them, so that all read the same.
        reader: of the label column; by default that of the kind of task.

    Raises:
        UserError: for missing splits or columns, an empty split, or invalid labels or answers.
    """
    tokenizers = RowTokenizers(tokenizer, encodings or {})
    for one in (tokenizer, *tokenizers.further.values()):
        check_padding(one)
    names = scored_split_names(splits, task, train_split, evaluation_splits)
    chosen = {name: splits[name] for name in (train_split, *names)}
    uses_validation = bool(selection_share) and "validation" in splits and "validation" not in chosen
    if uses_validation:
        chosen["validation"] = splits["validation"]
    for name, rows in chosen.items():
        check_columns(rows, task, name, needs_labels=name != train_split)
    reader = reader or label_reader(task.kind)
    classes = reader.read(chosen, train_split, task)
    limits = {name: max_evaluation_rows for name in names} | {train_split: max_train_rows}
    limited = {name: limit_rows(rows, limits.get(name), seed) for name, rows in chosen.items()}
    limited[train_split] = _share_of(limited[train_split], share, reader, task, seed)
    for name, rows in limited.items():
        check_label_values(rows, task, reader, classes, name, complete=name != train_split)
    selection_split = "validation" if uses_validation else None
    if selection_share and not uses_validation:
        selection_split = SELECTION_ROWS
        parts = split_off(limited[train_split], selection_share, seed, "choosing the best checkpoint")
        limited |= dict(zip((train_split, selection_split), parts, strict=True))
    limited[train_split] = _with_labels_of(limited[train_split], labelled_share, reader, task, seed)
    tokenised: dict[str, Dataset] = {}
    price, outputs = 0.0, AnswerTask(task.kind, *classes, reader)
    for name, rows in limited.items():
        with_words = words and name == train_split
        tokenised[name] = tokenised_rows(rows, tokenizers, task, reader, classes, max_length, num_proc, with_words)
        if answers is not None:
            is_needed = name in (train_split, SELECTION_ROWS)
            tokenised[name] = answers.with_answers(tokenised[name], rows, name, outputs, needed=is_needed)
            price += answers.price_of(rows)
    selection = tokenised[selection_split] if selection_split else None
    split = without_counts(Split(tokenised[train_split], selection, {name: tokenised[name] for name in names}))
    split.train_texts = limited[train_split].select_columns(list(task.text_columns))
    split.price = price if answers is not None and answers.price else None
    metric = task.name if task.name in GLUE else task.kind.name
    return TaskData(metric, task.kind, *classes, split)


def _share_of(rows: Dataset, share: float, reader: LabelReader, task: Task, seed: int) -> Dataset:
    """Return a share of the training rows, of each group of labels; rows without a label are a group too."""
    if share >= 1:
        return rows
    labels = rows[task.label_column][:] if task.label_column in rows.column_names else [None] * len(rows)
    known = [not is_missing(label) for label in labels]
    return keep_share(rows, share, [*zip(known, reader.strata(labels), strict=True)], seed)


def _with_labels_of(rows: Dataset, share: float, reader: LabelReader, task: Task, seed: int) -> Dataset:
    """Return the rows with a share of their labels, of each group of them; null in place of the others."""
    if share >= 1 or task.label_column not in rows.column_names:
        return rows
    labels = rows[task.label_column][:]
    known = np.flatnonzero([not is_missing(label) for label in labels])
    return keep_labels(rows, task.label_column, share, known, reader.strata([labels[row] for row in known]), seed)


def load(
    splits: Any,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    options: Any,
    limits: DataLimits,
    reader: LabelReader | None = None,
) -> TransferSet:
    """Return tokenised rows and the collator that pads them.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.
        reader: of the label column; by default that of the kind of task.

    Raises:
        UserError: for a stream, and for the errors of `load_task`.
    """
    if options.streaming:
        raise UserError(
            "data.streaming",
            "false for a task",
            "true",
            why="tasks fit in memory",
            fix="leave it out",
        )
    own_splits, splits = splits, with_test_rows(splits, task, options)
    data = load_task(
        splits,
        tokenizer,
        task,
        train_split=options.train_split,
        evaluation_splits=options.evaluation_splits,
        max_length=options.max_length,
        selection_share=limits.selection_share,
        max_train_rows=options.max_train_rows,
        share=options.share,
        labelled_share=options.labelled_share,
        max_evaluation_rows=options.max_evaluation_rows,
        num_proc=options.num_proc,
        seed=limits.data_seed,
        words=limits.words,
        answers=limits.answers,
        encodings=limits.encodings,
        reader=reader,
    )
    names = [*data.split.evaluation, *(["validation"] if data.split.selection is not None else [])]
    others = {
        name: limit_rows(splits[name], options.max_evaluation_rows, limits.data_seed)
        for name in names
        if name in splits and name != options.train_split
    }
    repeated = training_rows_among(splits[options.train_split], others, task.text_columns, options.train_split)
    data.split.held_out = next((name for name in splits if name not in own_splits), None)
    data.split.repeated = {name: repeated[name] for name in data.split.evaluation}
    data.split.texts = {name: others[name].select_columns(list(task.text_columns)) for name in data.split.evaluation}
    data.split.row_numbers = {
        name: row_numbers(len(splits[name]), options.max_evaluation_rows, limits.data_seed)
        for name in data.split.evaluation
    }
    collator = TaskCollator(tokenizer, task.kind, options.pad_to_multiple_of, limits.encodings)
    return TransferSet(data.task, data.head, data.split, collator)


def with_test_rows(splits: Any, task: Task, options: Any) -> Any:
    """Return the splits; where a dataset of one's own is one split, `data.test_share` of its rows are another one.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.

    Raises:
        UserError: for missing columns, or too few rows.
    """
    note = (
        "chosen by their text (data.test_share). Where the teacher has seen them in its own training, its score is "
        "better than it would be on new rows"
    )
    return with_held_out(splits, task, options, lambda rows: hold_out_rows(rows, task, options.test_share), note)


def with_held_out(
    splits: Any,
    task: Task,
    options: Any,
    divide: Callable[[Dataset], tuple[Dataset, Dataset]],
    note: str,
    needs_labels: bool = True,
) -> Any:
    """Return the splits; where a dataset of one's own is one split, some of its rows are another one.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        divide: rows → (those to train on, those to score on).
        note: how they are chosen, for the log.
        needs_labels: whether rows without a column of labels are refused.
    """
    train = options.train_split
    if task.name not in CUSTOM_TASKS or options.evaluation_splits or list(splits) != [train]:
        return splits
    check_columns(splits[train], task, train, needs_labels)
    trained, scored = divide(splits[train])
    logger.info(f"{len(scored):,} of {len(splits[train]):,} rows are kept for scoring, {note}")
    return DatasetDict({train: trained, "test" if train != "test" else "held_out": scored})


def labelled_rows(rows: Dataset) -> Dataset:
    """Return the tokenised rows that have a label; the dataset itself if all have one."""
    known = has_label(rows["labels"])
    return rows if known.all() else rows.select(np.flatnonzero(known))


def has_label(labels: Any) -> np.ndarray:
    """Return which rows have a label, from encoded ones: (rows,), or (rows, classes) of a row with several."""
    numbers = np.asarray(labels, dtype=np.float64)
    numbers = numbers.reshape(len(numbers), -1)
    return ~(np.isnan(numbers) | (numbers == -100)).any(1)


def unlabelled_rows(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, split: str, *, max_length: int = 128
) -> Dataset:
    """Return a split without public labels, such as GLUE's `test`, tokenised like the others.

    Its label column is not read.

    Raises:
        UserError: for missing text columns, or an empty split.
    """
    check_columns(rows, task, split, needs_labels=False)
    texts, reader = rows.select_columns(list(task.text_columns)), label_reader(task.kind)
    return tokenised_rows(texts, RowTokenizers(tokenizer), task, reader, (None, 0), max_length, None)


def scored_split_names(splits: Any, task: Task, train: str, named: list[str] | None) -> list[str]:
    """Return the splits that scores are reported on: the named ones, the task's own, or test, or validation."""
    for name in (train, *(named or ())):
        named_split(splits, name)
    if named:
        return scored_splits(splits, named, train, are_named=True)
    own = [name for name in task.evaluation_splits if name in splits]
    own = scored_splits(splits, own, train, are_named=False)
    if not own:
        others = [name for name in splits if name != train]
        raise UserError(
            "data",
            f"a labelled split to report scores on ({', '.join(task.evaluation_splits)})",
            listed(splits) if others else f"{train} alone",
            why="there would be no score",
            fix=f"name {listed(others)} with data.evaluation_splits"
            if others
            else "add one: data.path=[rows.csv,rows-test.csv], or a folder of the two",
        )
    return own if task.name in GLUE else own[:1]


@dataclass
class TaskCollator:
    """Pads rows to the longest of the batch, or further to a multiple, so that batches have few different shapes.

    Labels are int64 (classes) or float32 (numbers; 0 and 1 for each of several labels). Each encoding is padded for
    itself, where the rows have it.

    Attributes:
        tokenizer: of the student's own encoding.
        kind: kind of task, or its name.
        pad_to_multiple_of: of the length.
        encodings: tokenizers of further encodings, by the encodings' names.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: TaskKind | str
    pad_to_multiple_of: int | None = None
    encodings: Mapping[str, PreTrainedTokenizerBase] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Replace the name of the kind by the kind."""
        self.kind = task_kind(self.kind)

    def of(self, encoding: str) -> TaskCollator:
        """Return the collator of rows that have one of the further encodings alone, by the usual names."""
        return TaskCollator(self.encodings[encoding], self.kind, self.pad_to_multiple_of)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._padded(self.tokenizer, features)
        for encoding in further_encodings(features[0]):
            padded = self._padded(self.encodings[encoding], [batch_of(row, encoding) for row in features])
            batch |= {f"{encoding}{name}": value for name, value in padded.items()}
        if "labels" in features[0]:
            labels = np.array([row["labels"] for row in features], dtype=label_reader(self.kind).dtype)
            batch["labels"] = torch.from_numpy(labels)
        return batch

    def _padded(
        self, tokenizer: PreTrainedTokenizerBase, features: Sequence[Mapping[str, Any]]
    ) -> dict[str, torch.Tensor]:
        inputs = [{k: v for k, v in row.items() if k in tokenizer.model_input_names} for row in features]
        return dict(tokenizer.pad(inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"))
