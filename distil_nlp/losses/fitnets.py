"""FitNets: hints from the teacher's intermediate layers."""

from torch import Tensor, nn

from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import HiddenTerm, LayerPairs, RowSetName, Weight, check_same_shape


def fitnets_hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows ½ ‖teacher − student‖², summed over the width; 0 at equality.

    Args:
        student: the regressor's output, (rows, width).
        teacher: (rows, width); no gradient flows to it.

    Raises:
        ValueError: if the shapes differ.

    Reference: FitNets, arXiv:1412.6550, the hint loss L_HT.
    """
    check_same_shape(student, teacher, "(rows, width) alike")
    return (at_least_fp32(teacher.detach()) - at_least_fp32(student)).square().sum() / 2


class FitNetsHint(HiddenTerm):
    """`fitnets_hint`: half the squared distance between a learned regressor's output and the teacher's, per token.

    The regressor maps the student's hidden states. It is linear with a bias, one for each student layer, and learned at
    equal widths too. (The paper's regressor ends in the hint's own nonlinearity; hidden states end in none.)

    Args:
        layers: `middle`, as in the paper.
        rows: see `LayerTerm`.
    """

    name, paper = "fitnets_hint", "1412.6550"
    unit = "½ squared distance"
    formula = "half the squared distance between hidden states, those of the student through a learned linear regressor"
    loss = staticmethod(fitnets_hint)

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "middle", rows: RowSetName = "all"):
        super().__init__(weight, layers, rows)

    def projection(self, narrow: int, wide: int) -> nn.Module:
        return nn.Linear(narrow, wide)
