"""Patient knowledge distillation: directions of [CLS]."""

from torch import Tensor

from distil_nlp.losses.numerics import normalize
from distil_nlp.objective import HiddenTerm, LayerPairs, Weight, check_same_shape


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows ‖student/‖student‖ − teacher/‖teacher‖‖², each in [0, 4]: 2 − 2 cos, and 0 where directions agree.

    Args: (rows, width) each. No gradient flows to the teacher. Raises ValueError if the shapes differ.

    Reference: Patient KD, arXiv:1908.09355, the loss L_PT.
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return (normalize(student) - normalize(teacher.detach())).square().sum()


class PKD(HiddenTerm):
    """`pkd`: squared distance of the normalised [CLS] states of paired layers, per sequence.

    The paper sums over layers, this takes the mean. So does the authors' code, which the published weights β go with;
    it also takes the mean over the width, so that β there is a weight of β / width here. A student of another width is
    projected, which the paper has not.

    Args:
        layers: `skip` is PKD-Skip: `uniform` without the last layer, which the output already teaches. PKD-Last, from
            12 layers to 6, is `[[6, 0], [7, 1], [8, 2], [9, 3], [10, 4]]`.
    """

    name, paper = "pkd", "1908.09355"
    unit = "squared distance"
    formula = "the squared distance between [CLS] states of length 1"
    loss = staticmethod(pkd)

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "skip"):
        super().__init__(weight, layers)

    def counted_rows(self) -> str:
        return "cls"
