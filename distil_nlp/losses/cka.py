"""Linear CKA as something to match: how alike two layers see the same rows, whatever their widths."""

from typing import Literal

from torch import Tensor

from distil_nlp.losses.numerics import TINY, at_least_fp32, check_same_rows, matmul_fp32
from distil_nlp.objective import BatchTerm, LayerPairs, Weight


def linear_cka_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with columns centred and Frobenius norms, in [0, 1]: 0 where the states agree up to
    rotation and scale.

    The usual, biased estimator: few rows of wide layers look alike, and two rows always do.

    Args:
        student, teacher: (rows, width), row i of one belongs to row i of the other; widths are free. No gradient flows
            to the teacher.

    Raises:
        ValueError: if the rows are not equally many.

    Reference: Kornblith et al. 2019, arXiv:1905.00414, section 3.
    """
    check_same_rows(student, teacher)
    x, y = (one - one.mean(0) for one in (at_least_fp32(student), at_least_fp32(teacher.detach())))
    lengths = matmul_fp32(x.T, x).norm() * matmul_fp32(y.T, y).norm()
    return 1 - matmul_fp32(y.T, x).square().sum() / lengths.clamp_min(TINY)


class LinearCKA(BatchTerm):
    """`linear_cka`: 1 − linear CKA of paired layers over the rows of a micro-batch. Widths need not agree.

    Args:
        layers: pairs of layers.
        rows: `all` attended tokens, or `cls` alone, of which a micro-batch has few: CKA of few rows is biased up.
    """

    name, paper = "linear_cka", "1905.00414"
    unit = "1 − CKA"
    formula = "1 − linear CKA of the hidden states over the rows of a micro-batch"
    loss = staticmethod(linear_cka_loss)

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last", rows: Literal["all", "cls"] = "all"):
        super().__init__(weight, layers)
        self.row_set = rows

    def signal_rows(self) -> str:
        return self.row_set
