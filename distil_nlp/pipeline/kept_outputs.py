"""Outputs of models on the evaluation rows, kept as files: what is scored once is not computed again."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.utils.files import atomic_file
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

OUTPUTS = "outputs.npz"
"""File with the outputs of a student on the evaluation splits."""
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""Exceptions that `load_outputs` raises for a file that is damaged, or none."""


def save_outputs(path: Path, outputs: dict[str, Outputs]) -> None:
    """Write the outputs of all splits to one file, as a whole or not at all."""
    arrays = {
        f"{split}/{name}": array
        for split, predicted in outputs.items()
        for name, array in vars(predicted).items()
        if array is not None
    }
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def read_outputs(path: Path, evaluation: Mapping[str, Any]) -> dict[str, Outputs] | None:
    """Return the kept outputs on the evaluation splits; None without, or if they are damaged or of other rows."""
    if not path.is_file():
        return None
    try:
        outputs = load_outputs(path)
    except DAMAGED as error:
        logger.info(f"{path} cannot be used ({error}): the student is trained again")
        return None
    rows = {split: len(predicted.predictions) for split, predicted in outputs.items()}
    if rows != {split: len(rows) for split, rows in evaluation.items()}:
        logger.info(f"{path} is of other rows than are evaluated on: the student is trained again")
        return None
    return outputs


def load_outputs(path: Path) -> dict[str, Outputs]:
    """Read the outputs that `save_outputs` wrote."""
    with np.load(path) as arrays:
        splits = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {split: _outputs_of(arrays, split) for split in splits}


def _outputs_of(arrays: Mapping[str, np.ndarray], split: str) -> Outputs:
    threshold = arrays.get(f"{split}/threshold")
    predictions, labels = (arrays[f"{split}/{name}"] for name in ("predictions", "labels"))
    known = None if threshold is None else float(threshold)
    return Outputs(predictions, labels, known, arrays.get(f"{split}/reference"))
