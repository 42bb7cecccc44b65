"""Answers in the data's columns as the teacher of a run: how many there are, how good they are, what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from distil_nlp.data import TransferSet
from distil_nlp.data.row_sets import ANSWERS
from distil_nlp.data.sequences import has_label
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.objective.objective import Objective
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import ColumnsSection
from distil_nlp.reporting.formatting import decimal, plural
from distil_nlp.reporting.scores import answers_in_words
from distil_nlp.teachers.answers import answered_rows, validate_gaps
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def check_answers(recipe: Recipe, data: TransferSet, objective: Objective) -> None:
    """Warn of rows that have no answers; raise UserError where a term needs one for every row and some have none."""
    section, split = recipe.teacher.columns, data.split
    if section is None:
        return  # where models teach too, they answer every row
    validate_gaps(objective, {"training": split.train, "selection": split.selection})
    missing = int((~answered_rows(split.train)).sum())
    if missing and all(term.needs_teacher for term in objective.terms):
        logger.warning(
            f"warning: {missing:,} training rows without an answer teach nothing, since no term reads labels alone: "
            "add hard_label, or leave those rows out"
        )
    if split.selection is not None and (missing := int((~answered_rows(split.selection)).sum())):
        logger.warning(
            f"warning: {missing:,} of {len(split.selection):,} rows to choose a checkpoint by have no answer: "
            "the loss there is of their labels alone"
        )


def answers_title(section: ColumnsSection | None) -> str:
    """Return the name of answers among several teachers."""
    return answers_in_words(section.source if section else None)


def answers_sentence(recipe: Recipe, data: TransferSet) -> str:
    """Return how many training rows have an answer, how well these fit the labels, and what they cost."""
    section = recipe.teacher.answers
    assert section is not None  # or there would be nothing to say
    counts = answers_block(section, data)
    missing = counts["rows"] - counts["answered"]
    parts = [f"answers{f' by {section.source}' if section.source else ''} to {counts['answered']:,} of "
             f"{plural(counts['rows'], 'training row')}"]  # fmt: skip
    if missing:
        alone = "labels alone are" if recipe.teacher.columns else "the models’ outputs alone are"
        parts.append(f"of the other {missing:,} {alone} learnt")
    if counts["training_score"] is not None:
        parts.append(f"{headline_metric(data.task)} {decimal(counts['training_score'])} against the labels there")
    if counts["price"] is not None:
        parts.append(f"price of all answers that are read: {counts['price']:,g}")
    if not counts["scored"]:
        parts.append("not scored: rows of the evaluation splits have none")
    return "; ".join(parts)


def answers_block(section: ColumnsSection, data: TransferSet) -> dict[str, Any]:
    """Return the block `teacher.answers` of `results.json`."""
    rows, known = data.split.train, answered_rows(data.split.train)
    form: Any = section.forms[0]
    return {
        "form": form,
        "source": section.source,
        "rows": len(rows),
        "answered": int(known.sum()),
        "training_score": _training_score(data, known),
        "price": data.split.price,
        "scored": answered_outputs(data) is not None,
    }


def _training_score(data: TransferSet, known: np.ndarray) -> float | None:
    """Return the headline metric of the answers to labelled training rows; None without any."""
    outputs = _outputs(data.split.train)
    labelled = known & has_label(outputs.labels)
    if not labelled.any():
        return None
    chosen = Outputs(outputs.predictions[labelled], outputs.labels[labelled])
    value = metrics_of(data.task, {"train": chosen})[headline_metric(data.task)]
    return float(value) if value == value else None


def answered_outputs(data: TransferSet) -> dict[str, Outputs] | None:
    """Return the answers to the evaluation rows as a teacher's outputs; None unless all of these have one."""
    split, evaluator = data.split, evaluator_of(data.kind)
    if not all(answered_rows(rows).all() for rows in split.evaluation.values()):
        return None
    outputs = {name: _outputs(rows) for name, rows in split.evaluation.items()}
    if not evaluator.has_threshold(data.task):
        return outputs
    can_choose = split.selection is not None and answered_rows(split.selection).all()
    chosen_on = _outputs(split.selection) if can_choose else None
    return {name: evaluator.with_threshold(one, chosen_on) for name, one in outputs.items()}


def answers_to(data: TransferSet) -> dict[str, Outputs]:
    """Return the answers to the evaluation rows as one of several teachers' outputs; NaN where a row has none."""
    return {name: _outputs(rows) for name, rows in data.split.evaluation.items()}


def _outputs(rows: Any) -> Outputs:
    labels = np.asarray(rows["labels"][:])
    return Outputs(np.asarray(rows[ANSWERS][:], dtype=np.float32), labels.astype(_label_type(labels)))


def _label_type(labels: np.ndarray) -> Any:
    return np.float32 if np.issubdtype(labels.dtype, np.floating) else np.int64
