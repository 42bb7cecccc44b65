"""Squared error of logits."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.objective import SoftTerm, check_same_shape
from distil_nlp.signals.spans import NOT_ALLOWED
from distil_nlp.tasks.kind import Output


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows mean_classes (student − teacher)² of the logits. 0 at equality.

    Unlike a divergence it also matches each row's mean, to which probabilities are invariant. For T → ∞
    `soft_target_kl` tends to ½ · `logit_mse` of logits centred row by row.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes); no gradient flows to them.

    Raises:
        ValueError: if the shapes differ.

    Reference: Ba, Caruana (2014), arXiv:1312.6184, section 2, which has ½ and the sum over classes.
    """
    check_same_shape(student, teacher)
    return F.mse_loss(student.float(), teacher.detach().float(), reduction="none").mean(-1).sum()


def span_logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows mean (student − teacher)² over the allowed positions; 0 in a row without any.

    Args:
        student: logits, (rows, positions), `NOT_ALLOWED` where a position is not.
        teacher: likewise; no gradient flows to them.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(student, teacher)
    allowed = (teacher.detach() > NOT_ALLOWED / 2).sum(-1).clamp_min(1)
    squares = F.mse_loss(student.float(), teacher.detach().float(), reduction="none")
    return (squares.sum(-1) / allowed).sum()


_LOSSES: Mapping[Output, Callable[[Tensor, Tensor], Tensor]] = {
    "distribution": logit_mse,
    "labels": logit_mse,
    "score": logit_mse,
    "spans": span_logit_mse,
}
"""Meaning of the outputs → (student, teacher) → Σ over rows."""


class LogitMSE(SoftTerm):
    """`logit_mse`: squared error of the logits, mean over the classes."""

    name, outputs = "logit_mse", ("distribution", "labels", "score", "spans")
    unit = "squared difference"
    formula = "squared error of the logits, averaged over classes"
    formulas = {"spans": "squared error of the logits of start and end, averaged over both and over allowed positions"}
    paper = "1312.6184"

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return _LOSSES[self.kind.output](student, teacher)
