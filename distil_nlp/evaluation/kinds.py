"""`Evaluator`: collects, scores and compares the outputs of one kind of task.

A kind's module, `evaluation/<kind.module>.py`, has an instance of a subclass as `EVALUATOR`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.tasks import TASKS, TaskKind, task_kind

Metrics = dict[str, float]
RowFeatures = Callable[[Any], np.ndarray]
"""`Outputs` → (rows, features): the features that a metric sums over rows."""
MetricOfSums = Callable[[np.ndarray], np.ndarray]
"""(draws, features) of sums over rows → the metric of each draw."""


@dataclass(frozen=True)
class RowScores:
    """Scores of single rows, (rows,) each.

    Attributes:
        predictions: class ids, numbers, texts, or tuples of class ids where a row has several labels; an id below 0 is
            none.
        probabilities: of what is predicted; None where there is none of the whole row.
        errors: 0 or 1 where a row is right or wrong, else `TaskKind.row_error`, such as |prediction − label|; NaN
            without a label.
    """

    predictions: np.ndarray
    probabilities: np.ndarray | None
    errors: np.ndarray


def rows_of_tuples(rows: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """Return tuples of any lengths as an array of objects, (rows,)."""
    found = [*rows]
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


class Resampled(NamedTuple):
    """A metric of resampled rows.

    Attributes:
        rows: number of rows (pairs, texts, blocks) that are drawn from.
        value: counts of each row, (draws, rows) → the metric of each draw, (draws,).
    """

    rows: int
    value: Callable[[np.ndarray], np.ndarray]


class Evaluator(ABC):
    """Scores of one kind of task.

    Attributes:
        fidelity_sets: row sets of the logits on which teacher and student are compared; empty where logits belong to
            sequences.
    """

    fidelity_sets: frozenset[str] = frozenset()

    @abstractmethod
    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return (predictions, labels) of a batch, as `Outputs` has them; logits are in fp32."""

    def outputs_with_texts(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Return `outputs`, and the prediction for each row as a text, (rows,) objects, where they do not tell it."""
        return self.outputs(logits, batch)

    @abstractmethod
    def metric_names(self, task: str) -> list[str]:
        """Return the metrics that evaluation reports for a task, besides the loss and its terms."""

    @abstractmethod
    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function from `Outputs` to a task's metrics."""

    def trainer_metrics(self, task: str) -> Callable[[EvalPrediction], Metrics] | None:
        """Return the metrics function of `Trainer` for gathered outputs; None where its exact sums are the metrics."""
        return self.metrics(task)

    def score(self, task: str, outputs: Any) -> Metrics:
        """Return a task's metrics of `Outputs`."""
        return self.metrics(task)(EvalPrediction(outputs.predictions, outputs.labels, outputs.reference))

    def has_threshold(self, task: str) -> bool:
        """Return whether predictions depend on a threshold, which the rows to choose by choose for each model."""
        return False

    def number_of(self, rows: Any) -> int:
        """Return how many rows of the data tokenised rows are of."""
        return len(rows)

    def with_threshold(self, outputs: Any, chosen_on: Any) -> Any:
        """Return `Outputs` with the threshold that is best on those of the rows to choose by; None without such rows.

        Called where the task has one alone.
        """
        return outputs

    @abstractmethod
    def majority(self, task: str, train: Any, rows: Any, collator: Callable) -> Metrics:
        """Return the metrics of a baseline without a model, such as the majority class."""

    @abstractmethod
    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return the headline metric as sums over rows, for the bootstrap."""

    def resampled(self, metric: str, outputs: Any) -> Resampled:
        """Return the headline metric of resampled rows of `Outputs`; by default from sums over rows."""
        features, value = self.resampling(metric)
        rows = features(outputs)
        return Resampled(len(rows), lambda counts: value(counts @ rows))

    def beside_teacher(self, outputs: Any, teacher: Any) -> Any:
        """Return `Outputs` of a model with what of the teacher's its scores are taken against; as it is without any."""
        return outputs

    def calibration(self) -> Mapping[str, tuple[RowFeatures, MetricOfSums]]:
        """Return measures of calibration as sums over rows, by name; none without probabilities of classes."""
        return {}

    def row_marks(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return a number for each row, (rows,), by which two sets of rows are checked to be the same."""
        return labels

    def confusion(self, outputs: Any) -> np.ndarray | None:
        """Return counts of labelled rows, true classes as rows and predicted ones as columns; None without classes.

        Args:
            outputs: `Outputs` of a split, whose columns are the classes.
        """
        return None

    def row_labels(self, outputs: Any, rows: Any) -> np.ndarray:
        """Return the label of each of `row_scores`, in the form of its predictions.

        Args:
            outputs: `Outputs` of a split.
            rows: of that split, tokenised.
        """
        return outputs.labels

    def row_scores(self, outputs: Any) -> RowScores | None:
        """Return prediction and error of each row of the data; None where a row has no single prediction."""
        return None

    def row_lengths(self, outputs: Any, lengths: np.ndarray) -> np.ndarray:
        """Return the tokens of each of `row_scores`, which may be several rows of `Outputs`, from those of these."""
        return lengths

    def own_rows(self, rows: Any, texts: Any) -> np.ndarray:
        """Return which row of the data each of `row_scores` is.

        Args:
            rows: of a split, tokenised.
            texts: the columns of text of the data's rows.
        """
        return np.arange(len(texts))

    def class_scores(self, outputs: Any) -> list[dict[str, float]] | None:
        """Return `precision`, `recall`, `f1` and `rows` of each class, in the order of ids; None without classes."""
        return None

    @abstractmethod
    def fidelity(self, batches: Sequence[Any], labels: Tensor | None) -> dict[str, Any]:
        """Return the agreement of student and teacher.

        Args:
            batches: results of `compare_batch`.
            labels: of all rows; None where the data has none.
        """

    def fidelity_of(self, teacher: Any, student: Any) -> dict[str, Any]:
        """Return the agreement of kept `Outputs` on the same rows."""
        logits = torch.from_numpy(teacher.predictions), torch.from_numpy(student.predictions)
        return self.fidelity([logits], torch.from_numpy(student.labels))

    def agreement_of(self, teacher: Any, student: Any) -> dict[str, Any]:
        """Return what kept `Outputs` on all rows tell of the agreement, where they are no logits; it replaces values.

        Called besides `fidelity`, which then is of some rows alone.
        """
        return {}

    def units(self, labels: Sequence[str]) -> Sequence[str]:
        """Return the names of what `class_scores` is of: the classes themselves."""
        return labels

    def compare_batch(self, teacher: Tensor, student: Tensor, batch: Mapping[str, Any]) -> Any:
        """Return the part of a batch's logits that `fidelity` needs; kept in memory for all batches."""
        return teacher.cpu(), student.cpu()


def evaluator_of(kind: TaskKind | str) -> Evaluator:
    """Return the evaluator of a kind of task."""
    return import_module(f"distil_nlp.evaluation.{task_kind(kind).module}").EVALUATOR


def task_evaluator(task: str) -> Evaluator:
    """Return the evaluator of a task in the table."""
    return evaluator_of(TASKS[task].kind)
