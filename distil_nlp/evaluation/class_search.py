"""A search for another order of a model's classes, in which its predictions fit the labels better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models import ClassMapping
from distil_nlp.tasks import TaskKind
from distil_nlp.tasks.class_order import better_order


@dataclass(frozen=True)
class ClassesFound:
    """An order of a model's classes that fits the labels better than the one that was taken.

    Attributes:
        names: the data's names in the order of the model's own classes.
        metric: name of the headline metric.
        score: its value in this order.
        score_as_taken: its value in the order that was taken.
        is_told: whether names, or somebody, told the order that was taken.
    """

    names: tuple[str, ...]
    metric: str
    score: float
    score_as_taken: float
    is_told: bool

    def remark(self, name: str) -> str:
        """Return what was found about the model of this name."""
        taken = "by their names or data.label_names" if self.is_told else "by number, since their names tell nothing"
        return (
            f"the classes of {name} seem to be in another order than was taken {taken}: as {', '.join(self.names)} "
            f"it would score {self.metric} {self.score:.3f} instead of {self.score_as_taken:.3f}"
        )


def find_classes(
    kind: TaskKind, task: str, outputs: Mapping[str, Outputs], mapping: ClassMapping
) -> ClassesFound | None:
    """Return the order that fits the labels of the first split better, if one does beyond chance (`better_order`).

    Nothing is changed by it: rows that scores are reported on choose nothing.

    Args:
        kind: kind of task.
        task: name in the table of metrics.
        outputs: split → outputs, in the order that was taken.
        mapping: the order that was taken.
    """
    split, taken = next(iter(outputs.items()))
    confusion = evaluator_of(kind).confusion(taken)
    order = None if confusion is None else better_order(confusion, mapping.is_told)
    if order is None:
        return None
    metric, reordered = headline_metric(task), Outputs(taken.predictions[:, list(order)], taken.labels)
    before, after = (metrics_of(task, {split: part})[metric] for part in (taken, reordered))
    return ClassesFound(mapping.reordered(order).names, metric, after, before, mapping.is_told)
