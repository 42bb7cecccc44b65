"""Data of ranking: pairs of query and document with a relevance, grouped by query.

Rows have `labels` of two numbers: the relevance, a grade divided by the highest one, NaN without a label; and the
number of the query in its split. Everything that chooses rows chooses whole queries.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, List, Value
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.column_checks import check_columns
from distil_nlp.data.labels import LabelReader, Labels, is_missing
from distil_nlp.data.overlap import training_rows_among
from distil_nlp.data.row_sets import FILLER
from distil_nlp.data.sequences import (
    SELECTION_ROWS,
    TaskCollator,
    labelled_rows,
    load_task,
    scored_split_names,
    with_held_out,
)
from distil_nlp.data.shares import rows_of_share
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import Task
from distil_nlp.utils.logging import get_logger

__all__ = ["LABELS", "RankingCollator", "RelevanceOfQueries", "labelled_rows", "load"]

logger = get_logger(__name__)

_ROW = "row of the data"
"""Column of the number of a row in the data."""
OVERLAP = "overlap"
"""Column of scored rows: the cosine of the TF-IDF vectors of query and document."""


class RelevanceOfQueries(LabelReader):
    """Reads [relevance, number of the query], as `load` puts them into the label column."""

    dtype, missing = np.float64, math.nan

    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return no class names, and the single output."""
        return None, 1

    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return none: `load` has checked the grades."""
        return []

    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return what grades are."""
        return "grades from 0 on"

    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return the pairs of numbers as they are."""
        return [*values]

    def feature(self, num_labels: int) -> Any:
        """Return the type of a pair of numbers."""
        return List(Value("float64"))

    def unlabelled(self, count: int, num_labels: int) -> np.ndarray:
        """Return labels of rows of no query."""
        return np.full((count, 2), math.nan)

    def strata(self, values: Sequence[Any]) -> list[Hashable]:
        """Return one group for all."""
        return [None] * len(values)


LABELS = RelevanceOfQueries()


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return tokenised pairs and the collator that pads them.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.

    Raises:
        UserError: for a stream, missing columns or splits, relevance that is no grade, and scored splits in which no
            query has both a relevant document and another one.
    """
    _check_settings(task, options)
    train_split, own_splits = options.train_split, splits
    splits = _with_test_queries(splits, task, options)
    names = scored_split_names(splits, task, train_split, options.evaluation_splits)
    rows = {name: _numbered(splits[name]) for name in (train_split, *names)}
    if limits.selection_share and "validation" in splits and "validation" not in rows:
        rows[SELECTION_ROWS] = splits["validation"]
    for name, some in rows.items():
        check_columns(some, task, name, needs_labels=name != train_split)
        _groups(some, task, options)  # or it says why there are none
        _check_grades(some, task, name, is_scored=name != train_split)
    most = {name: options.max_evaluation_rows for name in rows} | {train_split: options.max_train_rows}
    if options.share < 1:
        most[train_split] = rows_of_share(
            min(len(rows[train_split]), options.max_train_rows or len(rows[train_split])), options.share
        )
    rows = {name: _limited(some, most[name], task, options, limits.data_seed) for name, some in rows.items()}
    if limits.selection_share and SELECTION_ROWS not in rows:
        rows[train_split], rows[SELECTION_ROWS] = _split_off(rows[train_split], task, options, limits.selection_share)
    texts = {name: some.select_columns(list(task.text_columns)) for name, some in rows.items()}
    others = {name: texts[name] for name in names}
    repeated = training_rows_among(splits[train_split], others, task.text_columns, train_split)
    highest = max(max(_grades(some, task), default=0.0) for some in rows.values()) or 1.0
    for name in names:
        _check_queries(rows[name], task, options, name)
    ready = DatasetDict({name: _with_numbers(some, task, options, highest) for name, some in rows.items()})
    data = load_task(
        ready,
        tokenizer,
        task,
        train_split=train_split,
        evaluation_splits=[name for name in rows if name != train_split],
        max_length=options.max_length,
        num_proc=options.num_proc,
        seed=limits.data_seed,
    )
    split = data.split
    split.evaluation = {
        name: some.add_column(OVERLAP, _overlaps(texts[train_split], texts[name], task))
        for name, some in split.evaluation.items()
    }
    split.selection = split.evaluation.pop(SELECTION_ROWS, None)
    split.repeated = {name: repeated[name] for name in names}
    split.texts = others
    split.row_numbers = {name: rows[name][_ROW][:] for name in names}
    split.held_out = next((name for name in splits if name not in own_splits), None)
    collator = RankingCollator(tokenizer, options.group_size, options.pad_to_multiple_of)
    return TransferSet(data.task, data.head, split, collator)


def _numbered(rows: Dataset) -> Dataset:
    """Return rows with their numbers, from 0."""
    return rows.add_column(_ROW, [*range(len(rows))])


@dataclass
class RankingCollator:
    """Pads pairs to the longest of the batch, or further to a multiple; labels are float64, (rows, 2).

    Attributes:
        group_size: most documents of a query in an epoch of training; all of them share a batch.
    """

    tokenizer: PreTrainedTokenizerBase
    group_size: int = 8
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = TaskCollator(self.tokenizer, "ranking", self.pad_to_multiple_of)(features)
        if "labels" in batch:
            batch["labels"][torch.tensor([bool(row.get(FILLER, False)) for row in features])] = math.nan
        return batch


def _check_settings(task: Task, options: Any) -> None:
    if options.streaming:
        raise UserError("data.streaming", "false for ranking", "true", fix="leave it out")
    if len(task.text_columns) != 2:
        raise UserError(
            "data.text_columns",
            "two columns, of queries and of documents",
            listed(task.text_columns),
            why="a score is of a query and a document",
            fix="name both: data.text_columns=[query,document]",
        )


def _groups(rows: Dataset, task: Task, options: Any) -> np.ndarray:
    """Return the number of each row's query, (rows,), by first appearance.

    Raises:
        UserError: if the column is missing, or a row has no query.
    """
    column = options.group_column or task.text_columns[0]
    if column not in rows.column_names:
        raise UserError(
            "data.group_column",
            f"a column {quoted(column)}",
            listed(rows.column_names),
            why="nothing tells which documents are of one query",
            fix="name the column of queries or of their ids, or leave it out: rows of the same query are grouped then",
        )
    values = rows[column][:]
    missing = sum(value is None for value in values)
    if missing:
        raise UserError(
            "data.group_column",
            f"a query for each row in {quoted(column)}",
            f"null in {missing:,} rows",
            why="documents without a query cannot be ranked",
            fix="fill them in, or leave those rows out",
        )
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _labels(rows: Dataset, task: Task) -> list[Any]:
    return rows[task.label_column][:] if task.label_column in rows.column_names else [None] * len(rows)


def _grades(rows: Dataset, task: Task) -> list[float]:
    """Return the grades of the rows that have one."""
    return [float(value) for value in _labels(rows, task) if not is_missing(value)]


def _is_grade(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _check_grades(rows: Dataset, task: Task, split: str, is_scored: bool) -> None:
    """Raise UserError for relevance that is no grade, or missing in a split that is scored."""
    values = _labels(rows, task)
    known = [value for value in values if not is_missing(value)]
    wrong = [value for value in known if not _is_grade(value)]
    if wrong:
        are_hidden = is_scored and all(str(value) in ("-1", "-1.0") for value in known)
        raise UserError(
            f"data.{task.label_column}",
            "relevance as numbers from 0 on: 0 and 1, or grades",
            f"{', '.join(map(quoted, wrong[:3]))} in {split} ({len(wrong):,} rows)",
            why="they do not tell which documents are the better ones",
            fix="name another split with data.evaluation_splits: its labels are hidden"
            if are_hidden
            else "fix those rows; −100 or null marks an unlabelled one",
        )
    if is_scored and len(known) < len(values):
        raise UserError(
            "data",
            f"every row of {split} labelled",
            f"{len(values) - len(known):,} of {len(values):,} without a label",
            why="scores need the relevance of all documents of a query",
            fix="leave those rows out (0 is a document that is not relevant), or name another split with "
            "data.evaluation_splits",
        )


def _check_queries(rows: Dataset, task: Task, options: Any, split: str) -> None:
    """Say how many queries of a split cannot be scored; raise UserError if none can."""
    groups, grades = _groups(rows, task, options), np.asarray(_grades(rows, task))
    sizes, best = np.bincount(groups), np.zeros(groups.max() + 1)
    np.maximum.at(best, groups, grades)
    scored = (sizes > 1) & (best > 0)
    if not scored.any():
        raise UserError(
            "data.label_column",
            f"queries of {shown(split)} with two documents or more, one of them relevant (above 0)",
            f"none of {len(sizes):,}",
            why="no ranking could be scored",
            fix="group rows by another column with data.group_column, or name another split with "
            "data.evaluation_splits",
        )
    if not scored.all():
        logger.info(
            f"{split}: {(~scored).sum():,} of {len(sizes):,} queries are left out of scores: {(best <= 0).sum():,} "
            f"have no relevant document, {((best > 0) & (sizes < 2)).sum():,} a single document"
        )


def _of_queries(rows: Dataset, groups: np.ndarray, chosen: Any) -> Dataset:
    """Return the rows of some queries, in their order."""
    return rows.select(np.flatnonzero(np.isin(groups, chosen)))


def _limited(rows: Dataset, limit: int | None, task: Task, options: Any, seed: int) -> Dataset:
    """Return the rows of queries drawn by seed, as many as have no more rows than a limit; of one at least."""
    if limit is None or limit >= len(rows):
        return rows
    groups = _groups(rows, task, options)
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    totals = [*accumulate(np.bincount(groups)[order].tolist())]
    count = max(sum(total <= limit for total in totals), 1)
    return _of_queries(rows, groups, order[:count])


def _hashed(rows: Dataset, groups: np.ndarray, options: Any, task: Task) -> list[int]:
    """Return the numbers of the queries of which each document has a label, in an order that their content tells."""
    values = rows[options.group_column or task.text_columns[0]][:]
    unknown = {group for group, label in zip(groups.tolist(), _labels(rows, task), strict=True) if is_missing(label)}
    of_group = {group: str(value) for group, value in zip(groups.tolist(), values, strict=True) if group not in unknown}
    return sorted(of_group, key=lambda group: hashlib.blake2b(of_group[group].encode("utf-8", "replace")).digest())


def _split_off(rows: Dataset, task: Task, options: Any, share: float, ending: int = -1) -> tuple[Dataset, Dataset]:
    """Return (the rest, rows of a share of the queries), chosen by a hash of the query, which all have labels.

    Args:
        ending: −1 for those with the highest hashes, 1 for the lowest.

    Raises:
        UserError: if nothing would be left on one side.
    """
    groups = _groups(rows, task, options)
    order = _hashed(rows, groups, options, task)[::ending]
    size = max(round(share * len(order)), 1)
    if not order or len(np.unique(groups)) <= size:
        raise UserError(
            "data.path",
            "two queries or more with labels, to keep some of them for scoring or for choosing a checkpoint",
            f"{len(order):,} of {len(np.unique(groups)):,} queries have labels for all documents",
            why="nothing would be left to train on, or to score on",
            fix="use more data, name a split with data.evaluation_splits, or set training.eval_strategy=no",
        )
    chosen = order[:size]
    rest = np.setdiff1d(groups, chosen)
    return _of_queries(rows, groups, rest), _of_queries(rows, groups, chosen)


def _with_test_queries(splits: Any, task: Task, options: Any) -> Any:
    """Return the splits; where a dataset is one split, the rows of `data.test_share` of its queries are another one."""
    note = (
        "those of queries chosen by their text (data.test_share). Where the teacher has seen them in its own training, "
        "its score is better than it would be on new queries"
    )
    share = options.test_share
    return with_held_out(splits, task, options, lambda rows: _split_off(rows, task, options, share, ending=1), note)


def _with_numbers(rows: Dataset, task: Task, options: Any, highest: float) -> Dataset:
    """Return rows whose label column is [grade ÷ the highest grade, number of the query]."""
    labels, groups = _labels(rows, task), _groups(rows, task, options).tolist()
    pairs = [
        [math.nan if is_missing(label) else float(label) / highest, float(group)]
        for label, group in zip(labels, groups, strict=True)
    ]
    rows = rows.select_columns(list(task.text_columns))
    return rows.add_column(task.label_column, pairs, feature=List(Value("float64")))


def _overlaps(train: Dataset, rows: Dataset, task: Task) -> list[float]:
    """Return the cosine of the TF-IDF vectors of query and document, whose frequencies are those of training texts."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    texts = [[str(text or "") for text in train[name]] for name in task.text_columns]
    vectorizer.fit([*dict.fromkeys(texts[0]), *texts[1], "a"])  # a vocabulary must not be empty
    query, document = (vectorizer.transform([str(text or "") for text in rows[name]]) for name in task.text_columns)
    return np.asarray(query.multiply(document).sum(1)).ravel().tolist()
