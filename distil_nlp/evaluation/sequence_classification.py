"""Scores of sequence classification: a task's official metrics, agreement and calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import SUMS_OF_METRICS
from distil_nlp.evaluation.fidelity.outputs import count_agreement, expected_calibration_error
from distil_nlp.evaluation.glue_metric import METRICS_OF_TASKS
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures
from distil_nlp.evaluation.metrics import load_metric


class SequenceEvaluator(Evaluator):
    """Scores of outputs that belong to whole sequences: predictions are (rows, outputs), labels (rows,)."""

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and labels."""
        return logits.cpu().numpy(), batch["labels"].cpu().numpy()

    def metric_names(self, task: str) -> list[str]:
        """Return the task's official metrics."""
        return METRICS_OF_TASKS[task]

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the task's official metrics over the labelled rows."""
        metric = load_metric(task)

        def compute(outputs: EvalPrediction) -> Metrics:
            labels = np.asarray(outputs.label_ids)
            predictions, known = self.predictions(np.asarray(outputs.predictions)), self.is_labelled(labels)
            return metric.compute(predictions=predictions[known], references=labels[known])

        return compute

    def majority(self, task: str, train: Any, rows: Any, collator: Callable) -> Metrics:
        """Return the metrics of a constant prediction."""
        return self.majority_of_labels(task, train["labels"], rows["labels"])

    def majority_of_labels(self, task: str, train_labels: Iterable[float], references: Iterable[float]) -> Metrics:
        """Return the metrics of always predicting `constant` of the training labels."""
        labels, references = np.asarray(list(train_labels)), np.asarray(list(references))
        known = labels[self.is_labelled(labels)]
        constant = self.constant(known) if len(known) else 0
        return load_metric(task).compute(predictions=np.full(len(references), constant), references=references)

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return the metric as sums over rows."""
        return SUMS_OF_METRICS[metric]

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the predictions that metrics take."""
        raise NotImplementedError

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which rows have a label."""
        raise NotImplementedError

    def constant(self, labels: np.ndarray) -> float:
        """Return the best prediction without a model."""
        raise NotImplementedError


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
        return np.bincount(labels).argmax()

    def fidelity(self, batches: Sequence[tuple[Tensor, Tensor]], labels: Tensor | None) -> dict[str, Any]:
        """Return `agreement`, the fraction of equal predictions, and `kl`, the mean KL(teacher ‖ student) in nats.

        Over labelled rows also `ece` (see `expected_calibration_error`) and `confusion`, counts with true classes as
        rows and predicted ones as columns, of both models.
        """
        teacher, student = (torch.cat(parts).double() for parts in zip(*batches, strict=True))
        count, equal, kl = count_agreement(teacher, student)
        fidelity: dict[str, Any] = {"agreement": equal / count, "kl": kl / count}
        known = torch.zeros(count, dtype=torch.bool) if labels is None else labels != -100
        if known.any():
            references, classes = labels[known].numpy(), range(student.shape[-1])
            models = {"teacher": teacher.softmax(-1)[known].numpy(), "student": student.softmax(-1)[known].numpy()}
            fidelity["ece"] = {
                role: expected_calibration_error(probabilities, references) for role, probabilities in models.items()
            }
            fidelity["confusion"] = {
                role: confusion_matrix(references, probabilities.argmax(-1), labels=classes).tolist()
                for role, probabilities in models.items()
            }
        return fidelity


EVALUATOR = ClassificationEvaluator()
