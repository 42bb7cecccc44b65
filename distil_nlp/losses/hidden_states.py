"""Hidden states, token by token."""

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.objective import HiddenTerm, check_same_shape


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows 1 − cos(student, teacher), each in [0, 2]: matches directions and leaves lengths free.

    `hidden_mse` also fixes the lengths. Args: (rows, width) each; project the student first if widths
    differ. No gradient flows to the teacher. Raises ValueError if the shapes differ.

    Reference: DistilBERT, arXiv:1910.01108, section 3 (CosineEmbeddingLoss with target 1).
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).sum()


def hidden_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows mean_width (student − teacher)².

    The mean over the width keeps a weight comparable between models; rows are summed as everywhere.
    Args: (rows, width) each. Raises ValueError if the shapes differ.

    Reference: TinyBERT, arXiv:1909.10351, equation 8.
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return F.mse_loss(student.float(), teacher.detach().float(), reduction="none").mean(-1).sum()


class HiddenCosine(HiddenTerm):
    """`hidden_cosine`: 1 − cos per token and layer pair (DistilBERT's third term)."""

    name, loss = "hidden_cosine", staticmethod(hidden_cosine)
    unit = "1 − cosine"
    formula, paper = "1 − cosine of the hidden states", "1910.01108"


class HiddenMSE(HiddenTerm):
    """`hidden_mse`: squared error per token, averaged over the width (TinyBERT)."""

    name, loss = "hidden_mse", staticmethod(hidden_mse)
    unit = "squared difference"
    formula, paper = "squared error of the hidden states", "1909.10351"
