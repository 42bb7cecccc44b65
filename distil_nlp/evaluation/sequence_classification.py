"""Scores of sequence classification: a task's official metrics, agreement and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from distil_nlp.evaluation.bootstrap import ratio_of_sums
from distil_nlp.evaluation.fidelity.outputs import (
    calibration_error_of_sums,
    confidence_gaps,
    count_agreement,
    expected_calibration_error,
    negative_log_likelihoods,
)
from distil_nlp.evaluation.kinds import MetricOfSums, RowFeatures, RowScores
from distil_nlp.evaluation.sequences import SequenceEvaluator


class ClassificationEvaluator(SequenceEvaluator):
    """Predictions are logits, (rows, classes)."""

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the likeliest class."""
        return outputs.argmax(-1)

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return where the label is not −100."""
        return labels != -100

    def constant(self, labels: np.ndarray) -> float:
        """Return the majority class."""
        majority: Any = np.bincount(labels).argmax()
        return majority

    def confusion(self, outputs: Any) -> np.ndarray:
        """Return the confusion matrix."""
        known, classes = self.is_labelled(outputs.labels), range(outputs.predictions.shape[1])
        predicted = self.predictions(outputs.predictions)[known]
        return confusion_matrix(outputs.labels[known], predicted, labels=classes)

    def row_scores(self, outputs: Any) -> RowScores:
        """Return the likeliest class, its probability, and whether it is another than the label."""
        predicted = self.predictions(outputs.predictions)
        errors = np.where(self.is_labelled(outputs.labels), predicted != outputs.labels, np.nan)
        return RowScores(predicted, softmax(outputs.predictions, axis=-1).max(-1), errors)

    def calibration(self) -> Mapping[str, tuple[RowFeatures, MetricOfSums]]:
        """Return `ece` (see `expected_calibration_error`) and `nll`, the mean −log likelihood of the label in nats."""
        return {"ece": (self._gaps, calibration_error_of_sums), "nll": (self._likelihoods, ratio_of_sums)}

    def _gaps(self, outputs: Any) -> np.ndarray:
        """Return (rows, bins + 1): the gaps of `confidence_gaps`, and 1; 0 in rows without a label."""
        known = self.is_labelled(outputs.labels)[:, None]
        gaps = confidence_gaps(softmax(outputs.predictions.astype(float), axis=-1), outputs.labels)
        return np.hstack([gaps, np.ones_like(known)]) * known

    def _likelihoods(self, outputs: Any) -> np.ndarray:
        """Return (rows, 2): −log likelihood of the label, and 1; 0 in rows without a label."""
        known = self.is_labelled(outputs.labels)
        values = negative_log_likelihoods(outputs.predictions, np.where(known, outputs.labels, 0))
        return np.stack([values, np.ones_like(values)], axis=1) * known[:, None]

    def class_scores(self, outputs: Any) -> list[dict[str, float]]:
        """Return precision, recall and F1 of each class over labelled rows; 0 where nothing was predicted."""
        known, classes = self.is_labelled(outputs.labels), range(outputs.predictions.shape[1])
        predicted = self.predictions(outputs.predictions)[known]
        scores = precision_recall_fscore_support(outputs.labels[known], predicted, labels=classes, zero_division=0)
        names = ("precision", "recall", "f1", "rows")
        return [dict(zip(names, map(float, values), strict=True)) for values in zip(*scores, strict=True)]

    def fidelity(self, batches: Sequence[tuple[Tensor, Tensor]], labels: Tensor | None) -> dict[str, Any]:
        """Return `agreement`, the fraction of equal predictions, and `kl`, the mean KL(teacher ‖ student) in nats.

        Over labelled rows also `ece` and `nll` (see `calibration`) and `confusion`, counts with true classes as rows
        and predicted ones as columns, of both models.
        """
        teacher, student = (torch.cat(parts).double() for parts in zip(*batches, strict=True))
        count, equal, kl = count_agreement(teacher, student)
        fidelity: dict[str, Any] = {"agreement": equal / count, "kl": kl / count}
        known = torch.zeros(count, dtype=torch.bool) if labels is None else labels != -100
        if labels is not None and known.any():
            references, classes = labels[known].numpy(), range(student.shape[-1])
            models = {"teacher": teacher.softmax(-1)[known].numpy(), "student": student.softmax(-1)[known].numpy()}
            fidelity["ece"] = {
                role: expected_calibration_error(probabilities, references) for role, probabilities in models.items()
            }
            fidelity["nll"] = {
                role: float(negative_log_likelihoods(logits[known].numpy(), references).mean())
                for role, logits in (("teacher", teacher), ("student", student))
            }
            fidelity["confusion"] = {
                role: confusion_matrix(references, probabilities.argmax(-1), labels=classes).tolist()
                for role, probabilities in models.items()
            }
        return fidelity


EVALUATOR = ClassificationEvaluator()
