"""Rows of a single file that are kept for scoring: chosen by their content, the same share of each class."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from distil_nlp.data.kinds import data_module
from distil_nlp.data.labels import is_missing
from distil_nlp.errors import UserError
from distil_nlp.tasks import Task


def hold_out_rows(rows: Dataset, task: Task, share: float) -> tuple[Dataset, Dataset]:
    """Return (rows to train on, rows to score on), in the order of the file.

    A hash of a row's texts decides, so that equal texts are on one side, and a row stays on its side when others are
    added, as far as the shares allow. Each class, or other group of labels (`LabelReader.strata`), gives the same share
    of its different texts, at least one where it has two; a text in several groups counts for its most frequent one.
    Rows without a label are trained on, unless their text is scored.

    Args:
        rows: with the task's columns.
        task: its text and label columns are read; without a label column all rows count as labelled.
        share: fraction of the labelled rows to score on.

    Raises:
        UserError: if nothing would be left on one side.
    """
    texts = _texts(rows, task.text_columns)
    labels = rows[task.label_column][:] if task.label_column in rows.column_names else [0] * len(texts)
    strata = data_module(task.kind).LABELS.strata(labels)
    of_text: dict[str, Counter] = defaultdict(Counter)
    for text, label, stratum in zip(texts, labels, strata, strict=True):
        if not is_missing(label):
            of_text[text][stratum] += 1
    groups: dict[Any, list[str]] = defaultdict(list)
    for text, counts in of_text.items():
        groups[counts.most_common(1)[0][0]].append(text)
    chosen = {text for group in groups.values() for text in _first(group, share)}
    scored = np.fromiter(
        (text in chosen and not is_missing(label) for text, label in zip(texts, labels, strict=True)), bool, len(rows)
    )
    trained = np.fromiter((text not in chosen for text in texts), bool, len(rows))
    if not scored.any() or not trained.any():
        raise UserError(
            "data.path",
            "two different labelled texts or more of a class, to keep some of them for scoring",
            f"{len(of_text):,} in {len(rows):,} rows",
            why="nothing would be left to train on, or to score on",
            fix="use more data, or name a split with data.evaluation_splits",
        )
    return rows.select(np.flatnonzero(trained)), rows.select(np.flatnonzero(scored))


def _texts(rows: Dataset, columns: Sequence[str]) -> list[str]:
    """Return the texts of each row as one, without spaces around them."""
    parts = [rows[name] for name in columns]
    return ["\x1f".join(str(part or "").strip() for part in row) for row in zip(*parts, strict=True)]


def _first(texts: list[str], share: float) -> list[str]:
    """Return a share of the texts, the first ones by their hashes; none of a single one."""
    size = min(max(round(share * len(texts)), 1), len(texts) - 1)
    return sorted(texts, key=lambda text: hashlib.blake2b(text.encode("utf-8", "replace")).digest())[:size]
