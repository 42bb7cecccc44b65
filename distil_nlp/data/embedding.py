"""Data of sentence embeddings: single texts, or pairs of texts with a score of how alike they are.

Each text is a row of its own, those of a pair next to each other. Rows that are scored have `labels` of three numbers:
that of their pair (of the text, where there are no pairs), its score (NaN without one), and a hash of the tokens.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.column_checks import check_columns
from distil_nlp.data.held_out_rows import hold_out_rows
from distil_nlp.data.labels import is_missing
from distil_nlp.data.overlap import training_rows_among
from distil_nlp.data.sequence_regression import LABELS
from distil_nlp.data.sequences import scored_split_names, with_held_out
from distil_nlp.data.shares import keep_share
from distil_nlp.data.splits import Split, limit_rows, row_numbers, split_off
from distil_nlp.data.tokenization import tokenise
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.tasks import Head, Task
from distil_nlp.utils.logging import get_logger

__all__ = ["LABELS", "EmbeddingCollator", "labelled_rows", "load"]

logger = get_logger(__name__)

PAIR_COLUMN, SCORE_COLUMN, CONTENT_COLUMN = range(3)
"""The columns of `labels`."""
_FEWEST = 3
"""Pairs below which a correlation says nothing."""


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return tokenised texts and the collator that pads them.

    Training reads texts alone; scores are read of the splits that models are scored on. Limits of rows are of pairs.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.

    Raises:
        UserError: for a stream, missing columns or splits, pairs without scores, or scores that are no numbers.
    """
    _check_inputs(tokenizer, options)
    own_splits, splits = splits, _with_test_rows(splits, task, options)
    names = scored_split_names(splits, task, options.train_split, options.evaluation_splits)
    chosen = {name: splits[name] for name in (options.train_split, *names)}
    for name, rows in chosen.items():
        check_columns(rows, task, name, needs_labels=False)
    others = {name: limit_rows(splits[name], options.max_evaluation_rows, limits.data_seed) for name in names}
    for name, rows in others.items():
        _check_scores(rows, task, name)
    repeated = training_rows_among(splits[options.train_split], others, task.text_columns, options.train_split)
    train, selection = limit_rows(splits[options.train_split], options.max_train_rows, limits.data_seed), None
    train = keep_share(train, options.share, [None] * len(train), limits.data_seed)
    if limits.selection_share:
        train, selection = split_off(train, limits.selection_share, limits.data_seed, "choosing the best checkpoint")

    def encoded(rows: Dataset, is_scored: bool) -> Dataset:
        return _tokenise(rows, tokenizer, task, options.max_length, options.num_proc, is_scored)

    split = Split(
        encoded(train, False),
        selection and encoded(selection, True),
        {name: encoded(rows, True) for name, rows in others.items()},
        repeated=repeated,
        held_out=next((name for name in splits if name not in own_splits), None),
        texts={name: rows.select_columns(list(task.text_columns)) for name, rows in others.items()},
        row_numbers={
            name: row_numbers(len(splits[name]), options.max_evaluation_rows, limits.data_seed) for name in names
        },
    )
    head = Head(task.kind, pooling=options.pooling, normalize=options.normalize)
    return TransferSet(task.name, head, split, EmbeddingCollator(tokenizer, options.pad_to_multiple_of))


def labelled_rows(rows: Dataset) -> Dataset:
    """Return all rows: texts need no label to learn from."""
    return rows


@dataclass
class EmbeddingCollator:
    """Pads rows to the longest of the batch, or further to a multiple; labels are float64, (texts, 3)."""

    tokenizer: PreTrainedTokenizerBase
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{k: v for k, v in row.items() if k in self.tokenizer.model_input_names} for row in features]
        batch = dict(self.tokenizer.pad(inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"))
        if "labels" in features[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in features], dtype=torch.float64)
        return batch


def _check_inputs(tokenizer: PreTrainedTokenizerBase, options: Any) -> None:
    if options.streaming:
        raise UserError("data.streaming", "false for sentence embeddings", "true", fix="leave it out")
    if tokenizer.pad_token_id is None:
        raise UserError(
            None,
            "a tokenizer with a padding token",
            f"{type(tokenizer).__name__} without one",
            why="rows of unlike length cannot share a batch",
            fix="set pad_token in the teacher's tokenizer_config.json",
        )


def _with_test_rows(splits: Any, task: Task, options: Any) -> Any:
    """Return the splits; where a dataset is one split, `data.test_share` of its rows are another one."""
    note = "chosen by their text (data.test_share)"
    return with_held_out(splits, task, options, lambda rows: hold_out_rows(rows, task, options.test_share), note, False)


def _check_scores(rows: Dataset, task: Task, split: str) -> None:
    """Raise UserError for pairs without scores, or scores that no correlation can be taken with."""
    if len(task.text_columns) < 2:
        return
    if task.label_column not in rows.column_names:
        raise UserError(
            "data.label_column",
            f"a column of scores {quoted(task.label_column)} for the pairs of {split}",
            listed(rows.column_names),
            why="the cosines of pairs are compared with their scores",
            fix="name the column of scores, or one column of texts in data.text_columns",
        )
    values = rows[task.label_column]
    wrong = [value for value in values if is_missing(value) or not _is_number(value)]
    if wrong:
        raise UserError(
            "data.label_column",
            f"a number for each pair of {split}",
            f"{', '.join(map(quoted, wrong[:3]))} ({len(wrong):,} rows)",
            why="a correlation needs numbers",
            fix="fix those rows, or name another split with data.evaluation_splits",
        )
    if len(values) < _FEWEST or len(set(values)) < 2:
        raise UserError(
            "data.label_column",
            f"{_FEWEST} pairs or more of different scores in {split}",
            f"{len(values):,} pairs, {len(set(values))} different score{'s' * (len(set(values)) > 1)}",
            why="no correlation could be taken, as where the scores of a test split are hidden",
            fix="name another split with data.evaluation_splits, such as [validation]",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _tokenise(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int, num_proc: int | None, scored: bool
) -> Dataset:
    features = {name: List(Value("int32")) for name in tokenizer.model_input_names} | {"length": Value("int32")}
    features |= {"labels": List(Value("float64"))} if scored else {}
    return rows.map(
        _encode,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        num_proc=num_proc if len(rows) > 5000 else None,
        features=Features(features),
        fn_kwargs=dict(tokenizer=tokenizer, task=task, max_length=max_length, scored=scored),
        desc="tokenising",
    )


def _encode(
    batch: dict[str, list],
    numbers: list[int],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    max_length: int,
    scored: bool,
) -> dict[str, Any]:
    """Return the tokens of each text of each row, the texts of a row next to each other."""
    names, columns = (*tokenizer.model_input_names, "length"), []
    for column in task.text_columns:
        texts = [text if text is not None else "" for text in batch[column]]
        encoded = dict(tokenise(tokenizer, {column: texts}, truncation=True, max_length=max_length))
        encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
        columns.append(encoded)
    rows = {
        name: [value for row in zip(*(one[name] for one in columns), strict=True) for value in row] for name in names
    }
    if scored:
        scores = batch[task.label_column] if len(columns) > 1 else [math.nan] * len(numbers)
        pairs = [pair for pair in zip(numbers, scores, strict=True) for _ in columns]
        hashes = [zlib.crc32(np.asarray(ids, dtype=np.int64).tobytes()) for ids in rows["input_ids"]]
        rows["labels"] = [
            [float(number), float(score), float(content)]
            for (number, score), content in zip(pairs, hashes, strict=True)
        ]
    return rows
