"""`SequenceEvaluator`: scores of outputs that belong to whole sequences, for every kind of label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import SUMS_OF_METRICS
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

    @abstractmethod
    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the predictions that metrics take."""

    @abstractmethod
    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which rows have a label."""

    @abstractmethod
    def constant(self, labels: np.ndarray) -> float:
        """Return the best prediction without a model."""
