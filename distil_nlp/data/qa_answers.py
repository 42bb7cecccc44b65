"""Answers of questions as SQuAD has them: their form, and that each is where it is said to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, LargeList, List

from distil_nlp.errors import UserError, quoted, shown
from distil_nlp.tasks import Task

FORM_OF_ANSWERS = (
    "{text: [...], answer_start: [...]} as SQuAD has it: all answers that are right, and the character each starts at"
)


def checked_answers(rows: Dataset, task: Task, split: str) -> list[Any]:
    """Return the answers of a split; none where it has no such column.

    Raises:
        UserError: for answers of another form or that are not where they are said to be, and for blank contexts.
    """
    name, column = task.text_columns[1], task.label_column
    contexts = rows[name][:]
    blank = [number for number, context in enumerate(contexts) if not isinstance(context, str) or not context.strip()]
    if blank:
        raise UserError(
            "data.text_columns",
            f"a context in each row of {shown(split)}",
            f"{len(blank):,} blank ones in {quoted(name)}, the first in row {blank[0]}",
            why="no answer could be found there",
            fix="take these rows out",
        )
    if column not in rows.column_names:
        return []
    if not _has_form(rows.features[column]):
        raise UserError(
            "data.label_column",
            FORM_OF_ANSWERS,
            f"{shown(rows.features[column])} in {quoted(column)} of {shown(split)}",
            why="nothing else tells where an answer is",
            fix="name the column of answers, or write it in this form ([] for a question without an answer)",
        )
    answers = [_none_if_null(value) for value in rows[column][:]]
    for number, (context, own) in enumerate(zip(contexts, answers, strict=True)):
        if own is not None:
            _check_places(context, own, f"row {number} of {shown(split)}")
    return answers


def _has_form(feature: Any) -> bool:
    """Return whether a column has a list of texts and a list of whole numbers."""
    if not isinstance(feature, dict) or not {"text", "answer_start"} <= feature.keys():
        return False
    parts = [feature["text"], feature["answer_start"]]
    types = [
        part.feature.dtype for part in parts if isinstance(part, List | LargeList) and hasattr(part.feature, "dtype")
    ]
    if len(types) < 2:
        return False
    return types[0] in ("string", "large_string", "null") and ("int" in types[1] or types[1] == "null")


def _none_if_null(value: Any) -> Any:
    """Return None for a question without a label: null, or null for the texts."""
    return None if value is None or value["text"] is None else value


def _check_places(context: str, answers: Mapping[str, Any], where: str) -> None:
    """Raise UserError for answers that are not in the context at the given places."""
    texts, starts = answers["text"], answers["answer_start"] or []
    if len(texts) != len(starts):
        raise UserError(
            "data.label_column",
            f"a start for each of the {len(texts)} answers in {where}",
            str(len(starts)),
            why="nothing else tells where an answer is",
            fix="correct that row, or set its answers to null",
        )
    for text, start in zip(texts, starts, strict=True):
        found = None if start is None or start < 0 or not text else context[start : start + len(text)]
        if found != text:
            raise UserError(
                "data.label_column",
                f"the answer {quoted(text)} at character {start} of the context in {where}",
                quoted(found) if found else "nothing",
                why="another piece of text would be learned and scored",
                fix="count characters of the context as it is in the file (not bytes), from 0; or take the row out",
            )
