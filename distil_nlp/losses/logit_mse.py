"""Squared error of logits."""

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.objective import SoftTerm, check_same_shape


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


class LogitMSE(SoftTerm):
    """`logit_mse`: squared error of the logits, mean over the classes."""

    name, outputs = "logit_mse", ("distribution", "labels", "score")
    unit = "squared difference"
    formula = "squared error of the logits, averaged over classes"
    paper = "1312.6184"

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return logit_mse(student, teacher)
