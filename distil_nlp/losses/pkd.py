"""Patient knowledge distillation: directions of [CLS] states."""

from torch import Tensor

from distil_nlp.losses.numerics import normalize
from distil_nlp.objective import HiddenTerm, LayerPairs, Weight, check_same_shape


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows ‖student/‖student‖ − teacher/‖teacher‖‖², each in [0, 4]: 2 − 2 cos, and 0 where directions agree.

    Args:
        student: (rows, width); project it first if widths differ.
        teacher: (rows, width); no gradient flows to it.

    Raises:
        ValueError: if the shapes differ.

    Reference: Patient KD, arXiv:1908.09355, the loss L_PT.
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return (normalize(student) - normalize(teacher.detach())).square().sum()


class PKD(HiddenTerm):
    """`pkd`: squared distance of the normalised [CLS] states of paired layers, per sequence.

    The paper sums over layers, this term averages. So does the authors' code, to which the published weights β belong;
    it also averages over the width, so that β there is a weight of β / width here. A student of another width is
    projected, which the paper does not do.

    Args:
        layers: `skip` is PKD-Skip: `uniform` without the last layer, which the output already trains. PKD-Last, from
            12 layers to 6, is `[[6, 0], [7, 1], [8, 2], [9, 3], [10, 4]]`.
    """

    name, paper = "pkd", "1908.09355"
    unit = "squared distance"
    formula = "the squared distance between normalised [CLS] states"
    loss = staticmethod(pkd)

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "skip"):
        super().__init__(weight, layers)

    def counted_rows(self) -> str:
        return "cls"
