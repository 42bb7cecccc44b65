"""What is asked of the columns of texts and labels, before anything is tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from distil_nlp.data.labels import LabelReader, Labels, is_missing
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import Task
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def check_columns(rows: Dataset, task: Task, split: str, needs_labels: bool) -> None:
    """Raise UserError if text columns are missing or blank, or labels are missing in a split that is scored."""
    missing = [name for name in task.text_columns if name not in rows.column_names]
    if missing:
        raise UserError(
            "data.text_columns",
            f"columns {listed(task.text_columns)}",
            f"{listed(rows.column_names)} in {shown(split)}",
            why=f"{listed(missing)} cannot be read",
            fix="name the dataset's text columns",
        )
    if len(rows) == 0:
        raise UserError(
            "data",
            f"rows in {split}",
            "none",
            why="there is nothing to learn from or to score",
        )
    blank = sum(map(_is_blank, zip(*(rows[name] for name in task.text_columns), strict=True)))
    if 0 < blank < len(rows):
        logger.warning(f"{blank:,} of {len(rows):,} texts of {split} are blank")
    if blank == len(rows):
        raise UserError(
            "data.text_columns",
            f"text in {listed(task.text_columns)} of {shown(split)}",
            "blank rows only",
            why="there is nothing to learn from or to score",
            fix="name the column of text",
        )
    if needs_labels and task.label_column not in rows.column_names:
        raise UserError(
            "data.label_column",
            f"a column {quoted(task.label_column)} in {shown(split)}",
            listed(rows.column_names),
            why="scores need labels",
            fix="name the label column",
        )


def _is_blank(texts: Sequence[Any]) -> bool:
    return not any(text and not str(text).isspace() for text in texts)


def check_label_values(
    rows: Dataset, task: Task, reader: LabelReader, classes: tuple[Labels, int], split: str, complete: bool
) -> None:
    """Raise UserError for invalid labels, or missing ones in a split that is scored (`complete`)."""
    if task.label_column not in rows.column_names:
        return
    values = [value for value in rows[task.label_column] if not is_missing(value)]
    if complete and len(values) < len(rows):
        raise UserError(
            "data",
            f"every row of {split} labelled",
            f"{len(rows) - len(values)} of {len(rows)} without a label",
            why="scores need labels",
            fix="name another split with data.evaluation_splits",
        )
    invalid = reader.invalid(values, *classes)
    if invalid:
        examples = ", ".join(map(quoted, invalid[:3]))
        raise UserError(
            f"data.{task.label_column}",
            reader.expected(*classes),
            f"{examples} in {split} ({len(invalid)} rows)",
            why="they cannot be learnt",
            fix=_label_remedy(values, invalid, classes[0], split, complete),
        )


def _label_remedy(
    values: Sequence[Any], invalid: Sequence[Any], labels: tuple[str, ...] | None, split: str, complete: bool
) -> str:
    """Return what to do with invalid labels: hidden ones, spellings, classes that training does not have, others."""
    if complete and all(str(value) == "-1" for value in values):
        return f"labels of {split} are hidden: name another split with data.evaluation_splits, such as [validation]"
    if any(str(value) == "-1" for value in invalid):
        return "write −100 or null for an unlabelled row, and number classes from 0 on"
    known = {name.strip().casefold() for name in labels or ()}
    if known and any(str(value).strip().casefold() in known for value in invalid):
        return "spell them as in the training split"
    if known and complete:
        return "leave those rows out, or add training rows of their classes"
    return "fix those rows; −100 or null marks an unlabelled one"
