"""Matching hidden states, token by token."""

import torch.nn.functional as F
from torch import Tensor


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows 1 − cos(student, teacher), each in [0, 2]: matches directions and leaves lengths free.

    `hidden_mse` also fixes the lengths. Args: (rows, width) each; project the student first if widths
    differ. No gradient flows to the teacher. Raises ValueError if the shapes differ.

    Reference: DistilBERT, arXiv:1910.01108, section 3 (CosineEmbeddingLoss with target 1).
    """
    _same_width(student, teacher)
    return (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).sum()


def hidden_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows mean_width (student − teacher)².

    The mean over the width keeps a weight comparable between models; rows are summed as everywhere.
    Args: (rows, width) each. Raises ValueError if the shapes differ.

    Reference: TinyBERT, arXiv:1909.10351, equation 8.
    """
    _same_width(student, teacher)
    return F.mse_loss(student.float(), teacher.detach().float(), reduction="none").mean(-1).sum()


def _same_width(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected (rows, width) alike / got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
