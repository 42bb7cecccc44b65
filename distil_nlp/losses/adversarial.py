"""Adversarial distillation: a discriminator learns to tell the models' hidden states apart, the student to fool it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import Count, JointTerm, LayerPairs, Positive, RowSetName, Weight, check_same_shape


def adversarial(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows −log D(teacher) − log (1 − D(student)) in nats: the discriminator's binary cross-entropy.

    No distance: 2 log 2 = 1.39 where the discriminator cannot tell, towards 0 where it is always right, and more where
    it is wrong.

    Args:
        student: the discriminator's logits for the student's states, (rows,). D is their sigmoid, the probability of
            being the teacher's.
        teacher: the same for the teacher's states, (rows,).

    Raises:
        ValueError: if the shapes differ.

    Reference: Adversarial Network Compression, arXiv:1803.10750, which trains the two alternately.
    """
    check_same_shape(student, teacher, "(rows,) alike")
    return F.softplus(-at_least_fp32(teacher)).sum() + F.softplus(at_least_fp32(student)).sum()


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(states: Tensor, strength: float = 1.0) -> Tensor:
    """Return the states unchanged; multiply their gradient by −strength (Ganin & Lempitsky 2015, arXiv:1409.7495)."""
    return _Reversal.apply(states, strength)


class Discriminator(nn.Module):
    """A classifier of hidden states: (student's, teacher's states) → logits of being the teacher's, (rows,) each.

    The gradient is reversed where the student's states come in, above the student and, if widths differ, its linear
    projection.
    """

    def __init__(self, narrow: int, wide: int, units: int, strength: float):
        super().__init__()
        self.strength = strength
        self.project = nn.Identity() if narrow == wide else nn.Linear(narrow, wide)
        self.tell = nn.Sequential(nn.Linear(wide, units), nn.GELU(), nn.Linear(units, 1))

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        reversed_student = reverse_gradient(self.project(student), self.strength)
        return self.tell(reversed_student).squeeze(-1), self.tell(teacher).squeeze(-1)


class Adversarial(JointTerm):
    """`adversarial`: cross-entropy of a discriminator between hidden states, per token.

    The discriminator minimises it, the student gets the reversed gradient; so one optimiser trains both, and the weight
    applies to both.

    Args:
        layers, rows: see `LayerTerm`.
        strength: the factor of the student's reversed gradient, relative to the discriminator's.
        units: the number of hidden units of the discriminator.
    """

    name, paper, is_variant = "adversarial", "1803.10750", True
    unit = "nats"
    formula = (
        "the cross-entropy of a discriminator that tells the teacher's hidden states from the student's, minimised by "
        "the discriminator and maximised by the student"
    )
    why_not_balanced = "it falls where the discriminator wins, and would be weighed up for that"
    loss = staticmethod(adversarial)

    def __init__(
        self,
        weight: Weight = 1.0,
        layers: LayerPairs = "last",
        rows: RowSetName = "all",
        strength: Positive = 1.0,
        units: Count = 256,
    ):
        super().__init__(weight, layers, rows)
        self.strength, self.units = strength, units

    def module(self, narrow: int, wide: int) -> nn.Module:
        return Discriminator(narrow, wide, self.units, self.strength)
