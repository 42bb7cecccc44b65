"""Variational information distillation: the likelihood of the teacher's hidden states, given the student's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import HiddenTerm, LayerPairs, Positive, RowSetName, Weight, check_same_shape

SMALLEST_VARIANCE = 1e-5
"""Added to each learned variance, so that the loss is bounded from below."""


def variational_information(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows mean_width ½ (log σ² + (teacher − μ)² / σ²): nats per dimension, without the constant ½ log 2π.

    The negative log-likelihood of the teacher under a Gaussian; its negative bounds the mutual information from below,
    up to a constant. It is no distance: it is ½ log σ² where μ equals the teacher. For given errors its minimum,
    ½ (1 + log σ²), is at a σ² equal to the mean squared error; with `Gaussian`'s σ² ≥ 1e-5 it can fall to
    ½ log 1e-5 = −5.76.

    Args:
        mean: μ, (rows, width).
        variance: σ² > 0, (rows, width).
        teacher: (rows, width); no gradient flows to it.

    Raises:
        ValueError: if the shapes differ.

    Reference: VID, arXiv:1904.05835, section 2, with a sum over the width.
    """
    check_same_shape(mean, teacher, "(rows, width) alike", ("mean", "teacher"))
    check_same_shape(variance, teacher, "(rows, width) alike", ("variance", "teacher"))
    mean, variance, teacher = at_least_fp32(mean), at_least_fp32(variance), at_least_fp32(teacher.detach())
    return (variance.log() + (teacher - mean).square() / variance).mean(-1).sum() / 2


class Gaussian(nn.Module):
    """A Gaussian of the teacher's states given the student's: states → (μ, σ²) concatenated, (rows, 2 · wide).

    μ is a learned linear map of the states, σ² = softplus(α) + 1e-5 a learned number for each dimension.
    """

    def __init__(self, narrow: int, wide: int, variance: float):
        super().__init__()
        self.mean = nn.Linear(narrow, wide)
        above = max(variance - SMALLEST_VARIANCE, SMALLEST_VARIANCE)
        self.alpha = nn.Parameter(torch.full((wide,), above + math.log(-math.expm1(-above))))

    def forward(self, states: Tensor) -> Tensor:
        mean = self.mean(states)
        variance = F.softplus(self.alpha) + SMALLEST_VARIANCE
        return torch.cat([mean, variance.expand(len(mean), -1)], -1)


class VariationalInformation(HiddenTerm):
    """`variational_information`: negative log-likelihood of the teacher's hidden states, per token and dimension.

    The mean is one linear map of the student's states; the authors' code has three layers with ReLU.

    Args:
        layers, rows: see `LayerTerm`.
        initial_variance: σ² at the start of training. The authors' code has 5 for convolutions; states after a layer
            norm vary less, and a σ² learned at a rate as low as an encoder's moves slowly.
    """

    name, paper = "variational_information", "1904.05835"
    unit = "nats per dimension"
    formula = (
        "−log likelihood of the teacher's hidden states under a Gaussian, its mean a learned linear map of the "
        "student's, its variances learned"
    )
    why_not_balanced = "its values may be below 0, and there is no variance to them"

    def __init__(
        self,
        weight: Weight = 1.0,
        layers: LayerPairs = "uniform",
        rows: RowSetName = "all",
        initial_variance: Positive = 1.0,
    ):
        super().__init__(weight, layers, rows)
        self.initial_variance = initial_variance

    def projection(self, narrow: int, wide: int) -> nn.Module:
        return Gaussian(narrow, wide, self.initial_variance)

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        mean, spread = student.chunk(2, -1)
        return variational_information(mean, spread, teacher)
