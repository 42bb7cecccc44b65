"""Feed-forward units before their activation function: which of them are active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distil_nlp.objective import BlockTerm, LayerPairs, Positive, Role, RowSetName, Weight, check_same_shape
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals


def activation_boundary(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """Σ_rows mean_units max(0, margin − s)² where the teacher's unit is active (> 0), max(0, margin + s)² where not.

    A squared hinge on the side of 0 that the teacher's unit is on; how far it is there does not matter. 0 where every
    unit of the student is on that side by the margin at least; so a student that equals its teacher is only there if
    its units are. The paper sums over units; the mean keeps a weight comparable between models.

    Args:
        student, teacher: (rows, units) each, before the activation function. Project the student if they differ.

    Raises:
        ValueError: if the shapes differ.

    Reference: Heo et al. 2019, arXiv:1811.03233 (its alternative loss; margin 1 as in the authors' code).
    """
    check_same_shape(student, teacher, "(rows, units) alike")
    student, is_active = student.float(), teacher.detach() > 0
    return torch.where(is_active, margin - student, margin + student).relu().square().mean(-1).sum()


def activation_share(student: Tensor, teacher: Tensor, softness: float = 1.0) -> Tensor:
    """Σ_rows (share of the student's units that are active − the teacher's)², in [0, 1] a row. 0 at equal shares.

    A unit x counts as Φ(x / softness): at softness 1 how far GELU lets it through, towards 0 whether x > 0. That bare
    count would have no gradient.

    Args:
        student, teacher: (rows, units), before the activation function; numbers of units may differ.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    check_same_shape(student[:, :1], teacher[:, :1], "(rows, …) with as many rows")
    ours, theirs = (torch.special.ndtr(one.float() / softness).mean(-1) for one in (student, teacher.detach()))
    return (ours - theirs).square().sum()


class _ActivationTerm(BlockTerm):
    """A term on the feed-forward units of paired layers, token by token, before their activation function.

    For families whose units are not gated: BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT, DeBERTa, MPNet, MobileBERT.
    """

    lacking = "have no feed-forward units"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(activations=frozenset((block, self.counted_rows()) for block in self.blocks(role)))

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) of each pair of layers, (rows, units) each."""
        rows = self.counted_rows()
        return [
            (self._projected(student, ours, student.activations, (ours, rows)), teacher.activations[theirs, rows])
            for theirs, ours in self.pairs
        ]


class ActivationBoundary(_ActivationTerm):
    """`activation_boundary`: squared hinge on the sign of the teacher's units (Heo et al.); a learned linear projection
    gives a student with another number of units as many.

    Args:
        margin: by how much the student's unit must be on the teacher's side of 0.
    """

    name, paper = "activation_boundary", "1811.03233"
    unit = "squared hinge"
    formula = "squared hinge of the feed-forward units on the sign of the teacher's, mean over units"

    def __init__(
        self, weight: Weight = 1.0, layers: LayerPairs = "uniform", rows: RowSetName = "all", margin: Positive = 1.0
    ):
        super().__init__(weight, layers, rows)
        self.margin = margin

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        narrow, wide = self.student_shape.feed_forward, self.teacher_shape.feed_forward
        if narrow == wide or None in (narrow, wide):  # what cannot be seen is refused where it is looked for
            return {}
        return {
            self._projection(block): (
                ProjectionInput(block, self.counted_rows(), "activations"),
                nn.Linear(narrow, wide),
            )
            for block in sorted(self.blocks("student"))
        }

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return activation_boundary(student, teacher, self.margin)


class ActivationShare(_ActivationTerm):
    """`activation_share`: squared difference of the shares of active units per token. Widths need not agree.

    Args:
        softness: how gradually a unit becomes active around 0; 1 is GELU's own gate.
    """

    name, paper = "activation_share", None
    unit = "squared difference"
    formula = "squared difference of the shares of active feed-forward units"

    def __init__(
        self, weight: Weight = 1.0, layers: LayerPairs = "uniform", rows: RowSetName = "all", softness: Positive = 1.0
    ):
        super().__init__(weight, layers, rows)
        self.softness = softness

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return activation_share(student, teacher, self.softness)
