"""`AnswersTeacher`: outputs that were made elsewhere, in a column of the rows; no model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PretrainedConfig

from distil_nlp.data.row_sets import ANSWERS, RowCollator
from distil_nlp.errors import UserError
from distil_nlp.objective import ModelShape, OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import Signals
from distil_nlp.tasks import TaskKind
from distil_nlp.teachers.source import TeacherSource


class AnswersTeacher(TeacherSource):
    """The column `teacher_logits` of the rows: float32 (classes), or one number for regression; NaN for no answer.

    `AnswerColumns` makes it of probabilities, labels and so on. It goes through the collator with its row, so that it
    follows the row through shuffling, other batches and a resumed run. Terms on outputs leave out rows without an
    answer, and divide by the number of the others in the whole step; such a row learns from its label alone.

    Args:
        config: the student's, for the sizes that terms ask for.
    """

    inputs = frozenset({ANSWERS})
    has_gaps = True

    def __init__(self, config: PretrainedConfig):
        self.config = config

    @property
    def shape(self) -> ModelShape:
        """The sizes of the student, which has as many outputs."""
        return ModelShape.of(self.config)

    def attach(self, objective: Objective, mixes: bool = False) -> None:
        """Raise UserError for an objective that needs more than outputs of whole rows."""
        validate_answers(objective, {"mixup": mixes or None})
        self._objective = objective

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Look at the answers of the training rows.

        Raises:
            UserError: if there are none, or a term compares rows and some have none.
        """
        if not hasattr(rows, "__len__"):
            return  # of a stream nothing can be looked at
        require_answers(rows)
        validate_gaps(self._objective, {"training": rows})

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return the outputs that the batch brings; NaN in rows that no term looks at."""
        return Signals(logits=answers_in(batch, int(self.config.num_labels or 1)))


def answers_in(batch: Mapping[str, Any], num_outputs: int) -> Tensor:
    """Return the answers that a batch brings, (rows, outputs); NaN for rows of an evaluation that have none."""
    found: Tensor | None = batch.get(ANSWERS)
    if found is not None:
        return found
    return batch["input_ids"].new_full((len(batch["input_ids"]), num_outputs), 0).float().fill_(float("nan"))


def require_answers(rows: Any) -> None:
    """Raise UserError for training rows without a column of answers."""
    if ANSWERS not in rows[0]:
        raise UserError(
            "teacher",
            f"a column {ANSWERS} in the training rows",
            "none",
            why="the teacher's outputs are read from it",
            fix="add it: a list of logits for each row",
        )


def validate_answered_kind(kind: TaskKind, where: str) -> None:
    """Raise UserError for a kind of task that a column cannot have answers of."""
    if not kind.has_row_outputs or kind.output not in ("distribution", "number", "labels"):
        raise UserError(
            where,
            "classification, regression or multilabel",
            kind.title,
            why="a column has one answer a row: probabilities, logits, a number or a label",
            fix="name models that teach, and leave columns out",
        )


def validate_unchanged_rows(augmentations: Mapping[str, Any], where: str) -> None:
    """Raise UserError for rows that are changed or made, beside answers.

    Args:
        augmentations: `cutoff`, `mixup` and `replacement` → their settings, or None.
        where: recipe key of the answers.
    """
    changing = [f"data.augmentation.{name}" for name, part in augmentations.items() if part is not None]
    if changing:
        raise UserError(
            ", ".join(changing),
            f"none with {where}",
            "rows that are changed or made",
            why="the answers are to the rows as the data has them",
            fix="leave one of the two out",
        )


def validate_answers(objective: Objective, augmentations: Mapping[str, Any]) -> None:
    """Raise UserError for an objective, or for rows, that answers in the data's columns cannot serve.

    Args:
        objective: its kind of task and its terms are checked; need not be bound.
        augmentations: `cutoff`, `mixup` and `replacement` → their settings, or None.
    """
    validate_answered_kind(objective.kind, "teacher.columns")
    needing = [term for term in objective.terms if term.needs_teacher]
    layers = [f"objective.{term.name}" for term in needing if not isinstance(term, OutputTerm)]
    if layers:
        raise UserError(
            "teacher.columns",
            "terms on outputs (soft_target_kl, logit_mse, …) and on labels",
            ", ".join(layers),
            why="answers have no layers, states or attention to compare with",
            fix="leave these terms out, or name a model that teaches instead of teacher.columns",
        )
    if not needing:
        raise UserError(
            "teacher.columns",
            "a term that learns from the answers",
            ", ".join(objective.names),
            why="nothing would read them",
            fix="add soft_target_kl (logit_mse for regression), or leave teacher.columns out",
        )
    validate_unchanged_rows(augmentations, "teacher.columns")


def validate_gaps(objective: Objective, splits: Mapping[str, Any]) -> None:
    """Raise UserError if a term compares the rows of a batch and some of them have no answer.

    Args:
        objective: its terms are checked.
        splits: name → rows with their answers, or None.
    """
    comparing = [term.name for term in objective.terms if term.needs_teacher and term.compares_samples]
    gaps = {name: int((~answered_rows(rows)).sum()) for name, rows in splits.items() if comparing and rows is not None}
    found = {name: number for name, number in gaps.items() if number}
    if found:
        raise UserError(
            "teacher.columns",
            f"an answer to every row with objective.{comparing[0]}",
            ", ".join(f"{number:,} {name} rows without one" for name, number in found.items()),
            why="the term compares the rows of a batch with each other",
            fix=f"leave objective.{comparing[0]} out, or those rows",
        )


def answered_rows(rows: Any) -> np.ndarray:
    """Return which rows have an answer; none of them where there is no column."""
    if not len(rows) or ANSWERS not in rows[0]:
        return np.zeros(len(rows), dtype=bool)
    column = rows[ANSWERS][:] if hasattr(rows, "column_names") else [row[ANSWERS] for row in rows]
    known: Any = ~np.isnan(np.asarray(column, dtype=np.float32)).any(1)
    return known
