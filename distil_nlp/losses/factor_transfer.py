"""Factor transfer: the student's states, translated, match a compressed paraphrase of the teacher's."""

from torch import Tensor, nn

from distil_nlp.losses.numerics import at_least_fp32, normalize
from distil_nlp.objective import Fraction, JointTerm, LayerPairs, RowSetName, Weight, check_same_shape


def factor_transfer(student: Tensor, factor: Tensor, rebuilt: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows ‖student/‖student‖ − factor/‖factor‖‖₁ + mean_width (rebuilt − teacher)².

    0 where both factors have the same direction and the teacher is rebuilt exactly. The first part, at most 2 √factors,
    trains the translator and the student below it, the second the paraphraser only. The paper sums the second over the
    width; the mean keeps the two comparable.

    Args:
        student: the translator's factors, (rows, factors).
        factor: the paraphraser's factors, (rows, factors); the first part sends no gradient to them.
        rebuilt: the paraphraser's reconstruction of the teacher, (rows, width).
        teacher: (rows, width); no gradient flows to it.

    Raises:
        ValueError: if the shapes differ.

    Reference: Factor Transfer, arXiv:1802.04977, sections 3.1 (reconstruction) and 3.2 with p = 1.
    """
    check_same_shape(student, factor, "(rows, factors) alike", ("student", "factor"))
    check_same_shape(rebuilt, teacher, "(rows, width) alike", ("rebuilt", "teacher"))
    distance = (normalize(student) - normalize(factor.detach())).abs().sum()
    return distance + (at_least_fp32(rebuilt) - at_least_fp32(teacher.detach())).square().mean(-1).sum()


class FactorModules(nn.Module):
    """A translator for the student and a paraphraser, an auto-encoder, for the teacher.

    (student's, teacher's states) → the arguments of `factor_transfer`. Translator, encoder and decoder are two linear
    layers each, with a leaky ReLU between them.
    """

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
    """`factor_transfer`: L1 distance between directions of factors, per token, and the paraphraser's squared error.

    The paper trains the paraphraser first and freezes it; here both are trained at once, so that the factors move while
    the student follows them. Its convolutions are linear layers here.

    Args:
        layers: `last`, as in the paper.
        rows: see `LayerTerm`.
        rate: the number of factors, as a fraction of the teacher's width.
    """

    name, paper, is_variant = "factor_transfer", "1802.04977", True
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
