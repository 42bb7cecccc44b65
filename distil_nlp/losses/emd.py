"""The earth mover's distance between two models' layers: which of them belong together is found, not given."""

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
"""Of Sinkhorn's algorithm: how many, and the first and last entropic regularisation, over the mean cost."""


def emd(costs: Tensor) -> Tensor:
    """Σ_problems min_plan Σ plan · costs, between masses that are uniform on either side: 1 in all.

    Above the least by the plan's inexactness: of the problems tried, up to 24 × 12, less than 1 % of the mean cost
    mostly, 2.5 % at most. The gradient is the plan (envelope theorem).

    Args: (problems, rows, columns), 0 or more; a problem of all 0 adds 0.

    Reference: BERT-EMD, arXiv:2010.06133, section 3; Sinkhorn distances, arXiv:1306.0895.
    """
    return (transport_plan(costs.detach()) * costs).sum()


def transport_plan(costs: Tensor) -> Tensor:
    """Nearly the cheapest plan for each problem, (problems, rows, columns): its rows sum to 1 / rows, its columns to
    1 / columns, to rounding.

    By Sinkhorn's algorithm on logarithms, whose regularisation is lowered from step to step, then rounded to the
    masses (Altschuler et al. 2017, arXiv:1705.09634, algorithm 2). The steps are fixed, so that no value is read from a
    device.
    """
    many, few = costs.shape[-2:]
    costs = costs / costs.mean((-2, -1), keepdim=True).clamp_min(TINY)
    column = costs.new_zeros(())
    for step in range(STEPS):
        softness = max(SOFTEST * (SHARPEST / SOFTEST) ** (2 * step / STEPS), SHARPEST)
        row = softness * (math.log(few) - ((column - costs) / softness).logsumexp(-1, keepdim=True))
        column = softness * (math.log(many) - ((row - costs) / softness).logsumexp(-2, keepdim=True))
    return _rounded(((row + column - costs) / softness).exp() / (many * few))


def _rounded(plan: Tensor) -> Tensor:
    many, few = plan.shape[-2:]
    plan = plan * (1 / many / plan.sum(-1, keepdim=True).clamp_min(TINY)).clamp_max(1)
    plan = plan * (1 / few / plan.sum(-2, keepdim=True).clamp_min(TINY)).clamp_max(1)
    short = 1 / many - plan.sum(-1, keepdim=True), 1 / few - plan.sum(-2, keepdim=True)
    return plan + short[0] * short[1] / short[0].sum(-2, keepdim=True).clamp_min(TINY)


def layer_costs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """mean_width (student − teacher)² of every layer of one with every one of the other, (rows, teacher's, student's).

    Args: (rows, width) of each layer. No gradient flows to the teacher. Raises ValueError if the shapes differ.

    Beside the states in fp32, one difference is held at a time, forward and backward.
    """
    check_same_shape(student[0], teacher[0], "(rows, width) alike")
    student, teacher = [at_least_fp32(one) for one in student], [at_least_fp32(one.detach()) for one in teacher]
    costs = [F.mse_loss(ours, theirs, reduction="none").mean(-1) for theirs in teacher for ours in student]
    return torch.stack(costs, 1).unflatten(1, (len(teacher), len(student)))


class HiddenEMD(CrossTerm):
    """`hidden_emd`: earth mover's distance between the blocks of both models, per sequence (BERT-EMD). The blocks of a
    model have equal masses, and moving one to another costs the mean squared error of their hidden states over the
    sequence's tokens. It is 0 only where the teacher's blocks, counted by mass, are the student's.

    The paper solves one problem for a batch, adapts the masses while training goes on, and does the same with
    attention; here masses stay uniform. A student of another width is projected.

    All blocks of both models are held, and compared in pairs: teacher's · student's times the work of `hidden_mse`.
    """

    name, paper = "hidden_emd", "2010.06133"
    unit = "squared difference"
    formula = (
        "the earth mover's distance between all layers of both models, where moving costs the squared error of the "
        "hidden states"
    )

    def counted_rows(self) -> str:
        return "sequences"

    def signal_rows(self) -> str:
        return "all"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        costs, places, tokens = layer_costs(*self.blocks_of(student, teacher)), batch["rows"]["all"], batch["input_ids"]
        sums = by_sequence(costs.flatten(1), places, tokens).sum(1)
        lengths = by_sequence(costs.new_ones(len(places), 1), places, tokens).sum(1)
        return emd((sums / lengths.clamp_min(1)).unflatten(1, costs.shape[1:]))
