"""Tasks as a table: columns, labels, splits, metrics. Data, no branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["mlm", "classification", "regression"]


@dataclass(frozen=True)
class Task:
    """One downstream task, in the layout of `nyu-mll/glue`.

    Attributes:
        name: as in GLUE, and the name of the dataset's configuration; or the kind, for a dataset of one's own.
        text_columns: one column, or two for a pair.
        labels: class names in the order of their ids; empty where the data must tell them, and for regression.
        headline: the metric that retention is taken on.
        kind: classification or regression.
        evaluation_splits: the labelled splits that scores are reported on. GLUE's test labels are not public.
        label_column: where the label stands.
    """

    name: str
    text_columns: tuple[str, ...]
    labels: tuple[str, ...] = ()
    headline: str = "accuracy"
    kind: Kind = "classification"
    evaluation_splits: tuple[str, ...] = ("validation",)
    label_column: str = "label"


_OWN_SPLITS = ("test", "validation", "dev")

CUSTOM_TASKS = {
    "classification": Task("classification", ("text",), evaluation_splits=_OWN_SPLITS),
    "regression": Task("regression", ("text",), (), "pearson", "regression", _OWN_SPLITS),
}
"""A dataset of one's own, whose columns the recipe names; scores are reported on the first split that exists."""


@dataclass(frozen=True)
class Head:
    """The head that a job needs.

    Attributes:
        kind: language modelling, classification or regression.
        labels: class names in the order of the data's ids; None if the data does not name its classes.
        num_labels: classes, or 1 for regression; None for language modelling.
    """

    kind: Kind
    labels: tuple[str, ...] | None = None
    num_labels: int | None = None

    def config(self) -> dict[str, Any]:
        """What a model's configuration must say for a new head of this kind."""
        if self.kind == "mlm":
            return {}
        names = self.labels or tuple(f"LABEL_{i}" for i in range(self.num_labels))
        problem = "regression" if self.kind == "regression" else "single_label_classification"
        return {
            "num_labels": self.num_labels,
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "problem_type": problem,
        }
