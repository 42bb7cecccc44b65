"""Factor transfer: the teacher paraphrased into fewer numbers, which the student translates its own states to."""

from torch import Tensor, nn

from distil_nlp.losses.numerics import at_least_fp32, normalize
from distil_nlp.objective import Fraction, JointTerm, LayerPairs, RowSetName, Weight, check_same_shape


def factor_transfer(student: Tensor, factor: Tensor, rebuilt: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows ‖student/‖student‖ − factor/‖factor‖‖₁ + mean_width (rebuilt − teacher)²; 0 where the factors have one
    direction and the teacher is rebuilt. The former, at most 2 √factors, teaches the translator and what is below it,
    the latter the paraphraser alone. The paper sums the latter over the width; the mean keeps the two comparable.

    Args:
        student, factor: the translator's and the paraphraser's, (rows, factors). No gradient flows from one to the
            other.
        rebuilt, teacher: (rows, width); no gradient flows to the teacher.

    Raises:
        ValueError: if the shapes differ.

    Reference: Factor Transfer, arXiv:1802.04977, sections 3.1 (reconstruction) and 3.2 with p = 1.
    """
    check_same_shape(student, factor, "(rows, factors) alike", ("student", "factor"))
    check_same_shape(rebuilt, teacher, "(rows, width) alike", ("rebuilt", "teacher"))
    distance = (normalize(student) - normalize(factor.detach())).abs().sum()
    return distance + (at_least_fp32(rebuilt) - at_least_fp32(teacher.detach())).square().mean(-1).sum()


class FactorModules(nn.Module):
    """(student's, teacher's states) → what `factor_transfer` takes: a translator for the student, and for the teacher a
    paraphraser, which is an auto-encoder. Each of the three is two linear layers with a leaky ReLU between them."""

    def __init__(self, narrow: int, wide: int, factors: int):
        super().__init__()
        self.translate, self.paraphrase = _two_layers(narrow, factors), _two_layers(wide, factors)
        self.rebuild = _two_layers(factors, wide)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        factor = self.paraphrase(teacher)
        return self.translate(student), factor, self.rebuild(factor), teacher


def _two_layers(narrow: int, wide: int) -> nn.Module:
    return nn.Sequential(nn.Linear(narrow, wide), nn.LeakyReLU(0.1), nn.Linear(wide, wide))


class FactorTransfer(JointTerm):
    """`factor_transfer`: L1 distance of the directions of factors, per token, and the paraphraser's squared error.

    The paper learns the paraphraser first and freezes it; here both learn at once, so that the factors move while the
    student follows them. Its convolutions are linear layers here.

    Args:
        layers: `last`, as in the paper.
        rows: see `LayerTerm`.
        rate: factors, as a share of the teacher's width.
    """

    name, paper = "factor_transfer", "1802.04977"
    unit = "L1 + squared error"
    formula = (
        "the L1 distance between the directions of factors, the teacher's from a learned auto-encoder, the student's "
        "from a learned translator, and the squared error of the auto-encoder"
    )
    loss = staticmethod(factor_transfer)

    def __init__(
        self, weight: Weight = 1.0, layers: LayerPairs = "last", rows: RowSetName = "all", rate: Fraction = 0.5
    ):
        super().__init__(weight, layers, rows)
        self.rate = rate

    def module(self, narrow: int, wide: int) -> nn.Module:
        return FactorModules(narrow, wide, max(round(self.rate * wide), 1))
