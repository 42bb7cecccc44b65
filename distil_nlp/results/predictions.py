"""Writing and reading of `predictions.parquet`: what teacher and student make of every evaluation row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distil_nlp.utils.files import atomic_file
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

PREDICTIONS = "predictions.parquet"
COLUMNS = {
    "split": "Evaluation split.",
    "row": "Number of the row in the data's split, from 0.",
    "text": "Text, as the data has it; for `tokens` a list of words. Absent with `evaluation.show_rows: false`.",
    "text_pair": "Second text. Absent for single texts, and with `evaluation.show_rows: false`.",
    "tokens": "Tokens of the input, special tokens included, after it was cut at `data.max_length`. For `qa` of all "
    "windows together, for pairs of `embedding` of both texts.",
    "label": "Class by name, or number; for `multilabel` and `tokens` a list of them; for `qa` the first right answer, "
    "empty where there is none; null without a label.",
    "teacher": "The teacher's prediction, in the same form; for `tokens` null at a word that the model does not read; "
    "for `embedding` the cosine of a pair, or of a text's vector with the teacher's.",
    "student": "The prediction of the run's own student, whose weights are in `student/`.",
    "teacher_probability": "Probability that the teacher gives the class or labels it predicts. Absent for other kinds "
    "of task than classification and `multilabel`.",
    "student_probability": "Likewise, of the student.",
    "teacher_error": "0 or 1 (any tag wrong for `tokens`, no exact match for `qa`); for regression the distance from "
    "the label; for `embedding` the distance, from 0 to 1, of a pair's rank by cosine from its rank by score, or 1 − "
    "cosine of a single text; for `ranking` the fraction of the query's documents of other relevance that are on the "
    "wrong side of the document. Null without a label.",
    "student_error": "Likewise, of the student.",
}
"""Columns of the file and their meanings, which docs/results_schema.md shows."""


def write_predictions(folder: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write the file into a run's folder, whole or not at all."""
    with atomic_file(folder / PREDICTIONS) as partial:
        pq.write_table(pa.table(dict(columns)), partial)


def read_predictions(folder: Path) -> pa.Table | None:
    """Return the file of a run's folder; None where there is none that can be read."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning(f"{path} cannot be read, so no rows are shown: {error}")
        return None
