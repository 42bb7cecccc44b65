"""Losses on hidden states, token by token."""

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.objective import HiddenTerm, check_same_shape


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows 1 − cos(student, teacher), each in [0, 2]: it matches directions and leaves norms free.

    `hidden_mse` also matches the norms.

    Args:
        student: (rows, width); project it first if widths differ.
        teacher: (rows, width); no gradient flows to it.

    Raises:
        ValueError: if the shapes differ.

    Reference: DistilBERT, arXiv:1910.01108, section 3 (CosineEmbeddingLoss with target 1).
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).sum()


def hidden_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows mean_width (student − teacher)²; 0 at equality.

    The mean over the width keeps a weight comparable between models; rows are summed as in every formula.

    Args:
        student: (rows, width); project it first if widths differ.
        teacher: (rows, width); no gradient flows to it.

    Raises:
        ValueError: if the shapes differ.

    Reference: TinyBERT, arXiv:1909.10351, equation 8.
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return F.mse_loss(student.float(), teacher.detach().float(), reduction="none").mean(-1).sum()


class HiddenCosine(HiddenTerm):
    """`hidden_cosine`: 1 − cos per token and layer pair (DistilBERT's third term).

    The default pairs all of the student's layers; DistilBERT takes `layers: last`.
    """

    name, loss = "hidden_cosine", staticmethod(hidden_cosine)
    unit = "1 − cosine"
    formula, paper = "1 − cosine of the hidden states", "1910.01108"


class HiddenMSE(HiddenTerm):
    """`hidden_mse`: squared error per token, averaged over the width (TinyBERT).

    The default leaves out the embeddings, which TinyBERT matches too: `layers: all`. Where widths are equal the states
    are compared as they are; where they differ each pair of layers has a linear map of its own. The authors' code has
    one linear map, shared by all layers and the embeddings, whatever the widths. It counts padding too, which is no row
    here.
    """

    name, loss = "hidden_mse", staticmethod(hidden_mse)
    unit = "squared difference"
    formula, paper = "squared error of the hidden states", "1909.10351"
