"""Scores of sequence regression: correlations, squared error, and the distance between teacher and student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr
from torch import Tensor

from distil_nlp.evaluation.kinds import RowScores
from distil_nlp.evaluation.sequences import SequenceEvaluator


class RegressionEvaluator(SequenceEvaluator):
    """Predictions are numbers, (rows, 1)."""

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the numbers, (rows,)."""
        return outputs.reshape(-1)

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return where the label is not NaN."""
        return ~np.isnan(labels)

    def constant(self, labels: np.ndarray) -> float:
        """Return the mean."""
        return labels.mean()

    def row_scores(self, outputs: Any) -> RowScores:
        """Return the numbers, and their distances from the labels."""
        predicted = self.predictions(outputs.predictions)
        return RowScores(predicted, None, np.abs(predicted - outputs.labels))

    def fidelity(self, batches: Sequence[tuple[Tensor, Tensor]], labels: Tensor | None) -> dict[str, Any]:
        """Return `pearson` of both models' outputs (None where one is constant) and `mean_absolute_difference`."""
        teacher, student = (torch.cat(parts).double().flatten().numpy() for parts in zip(*batches, strict=True))
        varies = np.ptp(teacher) > 0 and np.ptp(student) > 0
        return {
            "pearson": float(pearsonr(student, teacher).statistic) if varies else None,
            "mean_absolute_difference": float(np.abs(student - teacher).mean()),
        }


EVALUATOR = RegressionEvaluator()
