"""Losses on feed-forward units before their activation function: which of them are active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distil_nlp.objective import BlockTerm, LayerPairs, Positive, Role, RowSetName, Weight, check_same_shape
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals


def activation_boundary(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """Return Σ_rows mean_units max(0, margin − s)² where the teacher's unit is active (> 0), else max(0, margin + s)².

    A squared hinge on the sign of the teacher's unit; its magnitude does not matter. 0 where every unit of the student
    has that sign and a magnitude of at least the margin; so a student that equals its teacher has a loss of 0 only if
    all its magnitudes reach the margin. The paper sums over units; the mean keeps a weight comparable between models.

    Args:
        student: (rows, units), before the activation function; project it if its number of units differs.
        teacher: (rows, units), before the activation function; no gradient flows to it.
        margin: the magnitude that a unit of the student needs.

    Raises:
        ValueError: if the shapes differ.

    Reference: Heo et al. 2019, arXiv:1811.03233 (its alternative loss; margin 1 as in the authors' code).
    """
    check_same_shape(student, teacher, "(rows, units) alike")
    student, is_active = student.float(), teacher.detach() > 0
    return torch.where(is_active, margin - student, margin + student).relu().square().mean(-1).sum()


def activation_share(student: Tensor, teacher: Tensor, softness: float = 1.0) -> Tensor:
    """Return Σ_rows (fraction of the student's units that are active − the teacher's)², in [0, 1] per row.

    0 at equal fractions. A unit x counts as Φ(x / softness): at softness 1 the factor by which GELU multiplies x;
    towards softness 0 it becomes the indicator of x > 0, which has no gradient.

    Args:
        student: (rows, units), before the activation function.
        teacher: (rows, units), before the activation function; its number of units may differ.
        softness: the width of the transition around 0, above 0.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    check_same_shape(student[:, :1], teacher[:, :1], "(rows, …) with as many rows")
    student_active = torch.special.ndtr(student.float() / softness).mean(-1)
    teacher_active = torch.special.ndtr(teacher.detach().float() / softness).mean(-1)
    return (student_active - teacher_active).square().sum()


class _ActivationTerm(BlockTerm):
    """A term on the feed-forward units of paired layers, token by token, before their activation function.

    For families whose units are not gated: BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT, DeBERTa, MPNet, MobileBERT.
    """

    lacking = "have no feed-forward units"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(activations=frozenset((block, self.counted_rows()) for block in self.blocks(role)))

    def states(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """Return (student, teacher) for each pair of layers, (rows, units) each."""
        rows = self.counted_rows()
        return [
            (
                self._projected(student, student_block, student.activations, (student_block, rows)),
                teacher.activations[teacher_block, rows],
            )
            for teacher_block, student_block in self.pairs
        ]


class ActivationBoundary(_ActivationTerm):
    """`activation_boundary`: squared hinge on the sign of the teacher's units (Heo et al.).

    A learned linear projection maps a student's units to the teacher's number of units where these differ; the authors'
    connectors also normalise over the batch, and the loss is a first stage of training by itself.

    Args:
        margin: the magnitude that a student's unit needs, with the sign of the teacher's.
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
        if narrow == wide or narrow is None or wide is None:  # the recorder raises where a model has no such units
            return {}
        return {
            self._projection_name(block): (
                ProjectionInput(block, self.counted_rows(), "activations"),
                nn.Linear(narrow, wide),
            )
            for block in sorted(self.blocks("student"))
        }

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return activation_boundary(student, teacher, self.margin)


class ActivationShare(_ActivationTerm):
    """`activation_share`: squared difference of the fractions of active units per token. Widths need not agree.

    Args:
        softness: the width of the transition of a unit from inactive to active around 0; 1 is GELU's own gate.
    """

    name, paper = "activation_share", None
    unit = "squared difference"
    formula = "squared difference of the fractions of active feed-forward units"

    def __init__(
        self, weight: Weight = 1.0, layers: LayerPairs = "uniform", rows: RowSetName = "all", softness: Positive = 1.0
    ):
        super().__init__(weight, layers, rows)
        self.softness = softness

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return activation_share(student, teacher, self.softness)
