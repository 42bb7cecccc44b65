"""DIST: the correlation of class probabilities as a loss, instead of the probabilities themselves."""

from __future__ import annotations

from torch import Tensor

from distil_nlp.losses.soft_targets import softened
from distil_nlp.losses.standardised_logits import standardise
from distil_nlp.objective import OutputBatchTerm, RowSetName, Temperature, TemperedTerm, Weight, as_schedule


def dist_inter(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return Σ_rows 1 − Pearson's correlation over the classes of softmax(student / T) and softmax(teacher / T).

    Each row is in [0, 2], and 0 where one is an increasing linear function of the other, such as at equality. A row
    whose classes are all equally likely correlates with nothing and counts 1. Do not use it on two classes, where the
    correlation is ±1 whatever the probabilities, and has no gradient.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: DIST, arXiv:2205.10536, section 3 (inter-class relation). The authors' code multiplies by T², which is
    left out here: a correlation is invariant to scale, and does not shrink with T.
    """
    student_probs, teacher_probs = (log_probs.exp() for log_probs in softened(student, teacher, temperature))
    return _one_minus_correlation(student_probs, teacher_probs, -1).sum()


def dist_intra(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return mean_classes 1 − Pearson's correlation over the rows of the class's probabilities: one value for all rows.

    In [0, 2], and 0 at equality, unless a class is equally likely in all rows: that correlates with nothing and counts
    1. With two rows the correlation is ±1 and has no gradient. Arguments and errors are those of `dist_inter`.

    Reference: DIST, arXiv:2205.10536, section 3 (intra-class relation).
    """
    student_probs, teacher_probs = (log_probs.exp() for log_probs in softened(student, teacher, temperature))
    return _one_minus_correlation(student_probs, teacher_probs, 0).mean()


def _one_minus_correlation(student_probs: Tensor, teacher_probs: Tensor, dim: int) -> Tensor:
    return 1 - (standardise(student_probs, dim) * standardise(teacher_probs, dim)).mean(dim)


class DistInter(TemperedTerm):
    """`dist_inter`: 1 − the correlation of student's and teacher's class probabilities, per row (DIST).

    Args:
        temperature: T, a number or a `Schedule`.
        rows: see `ChosenRowsTerm`.
    """

    name, outputs, least_classes = "dist_inter", ("distribution",), 3
    unit = "1 − correlation"
    formula = "1 − Pearson's correlation over classes of the softened outputs"
    paper = "2205.10536"
    softened_loss = staticmethod(dist_inter)

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 1.0, rows: RowSetName | None = None):
        super().__init__(weight, temperature, rows)


class DistIntra(OutputBatchTerm):
    """`dist_intra`: 1 − the correlation of student's and teacher's probability of a class over rows (DIST).

    The rows are those of a micro-batch; the mean over classes is taken. More rows give a more informative correlation.

    Args:
        temperature: T, a number or a `Schedule`.
    """

    name, outputs = "dist_intra", ("distribution",)
    unit = "1 − correlation"
    formula = "1 − Pearson's correlation over the rows of a micro-batch of each class's softened output"
    paper = "2205.10536"

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 1.0):
        super().__init__(weight)
        self.temperature = as_schedule(temperature)

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return dist_intra(student, teacher, self.temperature(progress))
