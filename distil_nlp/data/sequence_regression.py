"""Data of sequence regression: rows with a number as the label."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from distil_nlp.data.labels import LabelReader, Labels, is_missing
from distil_nlp.data.sequences import labelled_rows, load
from distil_nlp.tasks import Task

__all__ = ["LABELS", "NumberLabels", "labelled_rows", "load"]

_LARGEST_NUMBER = 1e18
"""Bound of a label: its square must be finite in float32."""


class NumberLabels(LabelReader):
    """Reads finite numbers; NaN marks a row without a label."""

    dtype, missing = np.float32, math.nan

    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return no class names, and the single output of regression."""
        return None, task.kind.num_labels or 1

    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return values that are not numbers, or too large to be squared in float32."""
        return [value for value in values if not (isinstance(value, int | float) and abs(value) < _LARGEST_NUMBER)]

    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return the range of numbers."""
        return f"numbers below {_LARGEST_NUMBER:g}"

    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return floats."""
        return [self.missing if is_missing(value) else float(value) for value in values]

    def strata(self, values: Sequence[Any]) -> list[Hashable]:
        """Return one group for all."""
        return [None] * len(values)


LABELS = NumberLabels()
