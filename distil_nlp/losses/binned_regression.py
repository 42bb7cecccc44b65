"""A loss on regression outputs as distributions over bins."""

from __future__ import annotations

import torch
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.objective import Bins, Positive, SoftTerm, Temperature, Weight, as_schedule, check_same_shape


def binned_regression(
    student: Tensor,
    teacher: Tensor,
    low: float = 0.0,
    high: float = 5.0,
    bins: int = 17,
    width: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """Return T² · Σ_rows KL(p ‖ q) in nats, p the teacher's distribution over bins and q the student's; 0 at equality.

    The heads stay scalar: an output x becomes the distribution that a Gaussian kernel around it gives to `bins` centres
    c from `low` to `high`, softmax(−(x − c)² / (2 · width² · T)). With bins that are close and outputs well inside,
    that is T · (student − teacher)² / (2 · width²); beyond the ends it grows with the distance, not its square.
    So it is a squared error with smaller gradients for outputs outside the scale. It carries no uncertainty of the
    teacher, as a head that predicts the bins itself would. A temperature T has the effect of a kernel of width · √T.

    Args:
        student: outputs, (rows, 1) or (rows,).
        teacher: outputs of the same shape; no gradient flows to them.
        low: the first centre.
        high: the last centre.
        bins: the number of centres, at least 2.
        width: σ of the kernel, in units of the output.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: after Localization Distillation, arXiv:2102.12252, section 3, whose heads predict the bins.
    """
    check_same_shape(student, teacher)
    middle = (low + high) / 2
    centres = torch.linspace(low - middle, high - middle, bins, device=student.device)

    def scores(outputs: Tensor) -> Tensor:
        """Return −(x − c)² / (2 · width²) without the square of x, which all bins share."""
        outputs = outputs.float().reshape(-1, 1) - middle
        return (outputs * centres - centres.square() / 2) / width**2

    return soft_target_kl(scores(student), scores(teacher.detach()), temperature)


class BinnedRegression(SoftTerm):
    """`binned_regression`: T² · KL in nats between outputs as distributions over bins, made by a Gaussian kernel.

    Nearly a squared error within [low, high], and linear beyond; see the function.

    Args:
        temperature: T, a number or a `Schedule`.
        low, high: the ends of the scale; the defaults are STS-B's.
        bins: the number of bins.
        width: σ of the kernel, at least half the distance between two bins.

    Raises:
        UserError: if low is not below high, or the kernel falls between the bins.
    """

    name, outputs = "binned_regression", ("number",)
    unit = "nats × T²"
    formula = "KL(teacher ‖ student) of the softened distributions over bins around the outputs, times T²"
    paper, is_variant = "2102.12252", True

    def __init__(
        self,
        weight: Weight = 1.0,
        temperature: Temperature = 1.0,
        low: float = 0.0,
        high: float = 5.0,
        bins: Bins = 17,
        width: Positive = 0.5,
    ):
        super().__init__(weight)
        if low >= high:
            raise UserError(
                f"objective.{self.name}",
                "low below high",
                f"low={low} and high={high}",
                why="there would be no scale to cut into bins",
                fix="set both to the ends of the labels' scale",
            )
        distance = (high - low) / (bins - 1)
        if width < distance / 2:
            raise UserError(
                f"objective.{self.name}.width",
                f"at least half the distance of two bins, {distance / 2:g}",
                str(width),
                why="outputs between two bins would look alike",
                fix="raise width or bins",
            )
        self.temperature = as_schedule(temperature)
        self.low, self.high, self.bins, self.width = low, high, bins, width

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        scale = self.low, self.high, self.bins, self.width
        return binned_regression(student, teacher, *scale, self.temperature(progress))
