"""Linear CKA as a loss: the similarity of two layers on the same rows, whatever their widths."""

from typing import Literal

from torch import Tensor

from distil_nlp.losses.numerics import TINY, at_least_fp32, check_same_rows, matmul_fp32
from distil_nlp.objective import BatchTerm, LayerPairs, Weight


def linear_cka_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 − ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with columns centred and Frobenius norms, in [0, 1].

    0 where the states agree up to rotation and scale. This is the usual, biased estimator: for few rows of wide layers
    the CKA is close to 1 whatever the states, and for two rows it is 1.

    Args:
        student: X, (rows, width).
        teacher: Y, (rows, width) of the same rows in the same order; its width may differ. No gradient flows to it.

    Raises:
        ValueError: if the numbers of rows differ.

    Reference: Kornblith et al. 2019, arXiv:1905.00414, section 3.
    """
    check_same_rows(student, teacher)
    x, y = (states - states.mean(0) for states in (at_least_fp32(student), at_least_fp32(teacher.detach())))
    norms = matmul_fp32(x.T, x).norm() * matmul_fp32(y.T, y).norm()
    return 1 - matmul_fp32(y.T, x).square().sum() / norms.clamp_min(TINY)


class LinearCKA(BatchTerm):
    """`linear_cka`: 1 − linear CKA of paired layers over the rows of a micro-batch. Widths need not agree.

    Args:
        layers: pairs of layers.
        rows: `all` attended tokens, or `cls` only, of which a micro-batch has few: CKA of few rows is biased upwards.
    """

    name, paper, is_variant = "linear_cka", "1905.00414", True  # there a measure, not a loss
    unit = "1 − CKA"
    formula = "1 − linear CKA of the hidden states over the rows of a micro-batch"
    loss = staticmethod(linear_cka_loss)

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last", rows: Literal["all", "cls"] = "all"):
        super().__init__(weight, layers)
        self.row_set = rows

    def signal_rows(self) -> str:
        return self.aligned(str(self.row_set))
