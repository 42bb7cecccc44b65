"""The earth mover's distance between two models' layers: layers are matched by the loss, not by the recipe."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.numerics import TINY, at_least_fp32
from distil_nlp.objective import CrossTerm, by_sequence, check_same_shape
from distil_nlp.signals.types import Signals

STEPS, SOFTEST, SHARPEST = 100, 1.0, 0.01
"""Sinkhorn's algorithm: number of steps, and its first and last entropic regularisation relative to the mean cost."""


def emd(costs: Tensor) -> Tensor:
    """Return Σ_problems min_plan Σ plan · costs, between uniform masses that sum to 1 on either side.

    The plan is approximate: on the problems tried, up to 24 × 12, the result exceeds the minimum by less than 1 % of
    the mean cost mostly, by 2.5 % at most. The gradient is the plan (envelope theorem).

    Args:
        costs: (problems, rows, columns), 0 or more; a problem of zeros only adds 0.

    Reference: BERT-EMD, arXiv:2010.06133, section 3; Sinkhorn distances, arXiv:1306.0895.
    """
    return (transport_plan(costs.detach()) * costs).sum()


def transport_plan(costs: Tensor) -> Tensor:
    """Return a nearly optimal transport plan for each problem, (problems, rows, columns).

    Its rows sum to 1 / rows and its columns to 1 / columns, up to rounding errors. Sinkhorn's algorithm runs on
    logarithms with a regularisation that decreases from step to step, then the plan is rounded to the masses
    (Altschuler et al. 2017, arXiv:1705.09634, algorithm 2). The number of steps is fixed, so that no value is read from
    a device.

    Args:
        costs: (problems, rows, columns), 0 or more.
    """
    num_rows, num_columns = costs.shape[-2:]
    costs = costs / costs.mean((-2, -1), keepdim=True).clamp_min(TINY)
    column_potential = costs.new_zeros(())
    for step in range(STEPS):
        softness = max(SOFTEST * (SHARPEST / SOFTEST) ** (2 * step / STEPS), SHARPEST)
        row_sums = ((column_potential - costs) / softness).logsumexp(-1, keepdim=True)
        row_potential = softness * (math.log(num_columns) - row_sums)
        column_sums = ((row_potential - costs) / softness).logsumexp(-2, keepdim=True)
        column_potential = softness * (math.log(num_rows) - column_sums)
    plan = ((row_potential + column_potential - costs) / softness).exp()
    return _round_to_masses(plan / (num_rows * num_columns))


def _round_to_masses(plan: Tensor) -> Tensor:
    """Scale rows and columns that exceed their mass down, then spread the missing mass over the plan."""
    num_rows, num_columns = plan.shape[-2:]
    plan = plan * (1 / num_rows / plan.sum(-1, keepdim=True).clamp_min(TINY)).clamp_max(1)
    plan = plan * (1 / num_columns / plan.sum(-2, keepdim=True).clamp_min(TINY)).clamp_max(1)
    missing_rows = 1 / num_rows - plan.sum(-1, keepdim=True)
    missing_columns = 1 / num_columns - plan.sum(-2, keepdim=True)
    return plan + missing_rows * missing_columns / missing_rows.sum(-2, keepdim=True).clamp_min(TINY)


def layer_costs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return mean_width (student − teacher)² for all pairs of layers, (rows, teacher layers, student layers).

    Besides the states in fp32, one difference is in memory at a time, forward and backward.

    Args:
        student: the states of each layer, (rows, width) each.
        teacher: the states of each layer, (rows, width) each; no gradient flows to them.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(student[0], teacher[0], "(rows, width) alike")
    student = [at_least_fp32(states) for states in student]
    teacher = [at_least_fp32(states.detach()) for states in teacher]
    costs = [
        F.mse_loss(student_states, teacher_states, reduction="none").mean(-1)
        for teacher_states in teacher
        for student_states in student
    ]
    return torch.stack(costs, 1).unflatten(1, (len(teacher), len(student)))


class HiddenEMD(CrossTerm):
    """`hidden_emd`: earth mover's distance between the blocks of both models, per sequence (BERT-EMD).

    The blocks of a model have equal masses. Moving mass from one block to another costs the mean squared error of their
    hidden states over the sequence's tokens. It is 0 only where the teacher's blocks, counted by mass, equal the
    student's.

    The paper solves one problem per batch, adapts the masses during training, and also matches attention and the
    embeddings; here masses stay uniform. A student of another width is projected. The authors' weights for this part
    are 0.001 to 0.01, on the same scale.

    The plan is regularised by the mean cost: where one layer is 1,000 times as dear as the others, their masses are
    moved between each other at up to 1.4 times the least cost.

    The states of all blocks of both models stay in memory, and all pairs of blocks are compared: the work is that of
    `hidden_mse` on (teacher blocks · student blocks) pairs.
    """

    name, paper, is_variant = "hidden_emd", "2010.06133", True
    unit = "squared difference"
    formula = (
        "the earth mover's distance between all layers of both models, where moving costs the squared error of the "
        "hidden states"
    )

    def counted_rows(self) -> str:
        return "sequences"

    def signal_rows(self) -> str:
        return self.aligned("all")

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        costs = layer_costs(*self.blocks_of(student, teacher))
        positions, tokens = batch["rows"][self.signal_rows()], batch["input_ids"]
        sums = by_sequence(costs.flatten(1), positions, tokens).sum(1)
        lengths = by_sequence(costs.new_ones(len(positions), 1), positions, tokens).sum(1)
        return emd((sums / lengths.clamp_min(1)).unflatten(1, costs.shape[1:]))
