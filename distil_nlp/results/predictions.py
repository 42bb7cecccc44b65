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
    "text": "Text, as the data has it. Absent with `evaluation.show_rows: false`.",
    "text_pair": "Second text. Absent for single texts, and with `evaluation.show_rows: false`.",
    "tokens": "Tokens of the input, special tokens included, after it was cut at `data.max_length`.",
    "label": "Class by name, or number; for `multilabel` a list of them; null without a label.",
    "teacher": "The teacher's prediction.",
    "student": "The prediction of the run's own student, whose weights are in `student/`.",
    "teacher_probability": "Probability that the teacher gives the class or labels it predicts. Absent for regression.",
    "student_probability": "Likewise, of the student. Absent for regression.",
    "teacher_error": "0 or 1; for regression the distance from the label. Null without a label.",
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
