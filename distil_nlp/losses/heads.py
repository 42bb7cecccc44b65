"""Terms between the heads of one student: what a head learns from the others, which trains together with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.soft_targets import soft_target_kl, soft_target_mse
from distil_nlp.objective import LossTerm, OutputTerm, Role, Weight
from distil_nlp.objective.heads import LogitsOf
from distil_nlp.signals.types import SignalRequest, Signals


def mutual_kl(learner: Tensor, sources: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """Return the mean over sources of T² · Σ_rows KL(softmax(source / T) ‖ softmax(learner / T)), in nats.

    Args:
        learner: logits, (rows, classes).
        sources: logits of others, of the same shape; no gradient flows to them.
        temperature: T > 0.

    Reference: Zhang et al. (2018), arXiv:1706.00384, section 3, at T = 1.
    """
    total: Any = sum(soft_target_kl(learner, source, temperature) for source in sources)
    return total / len(sources)


class FromHeads(OutputTerm):
    """`mutual_kl`: what one head learns from others; the mean squared difference to them for regression.

    Args:
        name: in logs.
        learner: the head that learns.
        sources: the heads that it learns from.
        temperature: T.
    """

    unit = "nats × T²"
    formula = "KL(other head ‖ this head) of the softened outputs, times T²"
    formula_of_regression = "squared error to another head’s output"
    levels = ("sequence",)
    needs_teacher = False

    def __init__(
        self, name: str, weight: Weight, learner: LogitsOf, sources: Sequence[LogitsOf], temperature: float = 1.0
    ):
        super().__init__(weight)
        vars(self).update(name=name)
        self.learner, self.sources, self.temperature = learner, tuple(sources), temperature

    def counted_rows(self) -> str:
        return "sequences"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        rows = batch["rows"]["logits/sequences"]
        learner, *sources = (head(student).index_select(0, rows) for head in (self.learner, *self.sources))
        if self.kind.output == "number":
            total: Any = sum(soft_target_mse(learner, source) for source in sources)
            return total / len(sources)
        return mutual_kl(learner, sources, self.temperature)


class ExitHint(LossTerm):
    """Σ ‖h_i − h_C‖²: squared distance of the [CLS] state at an exit to that of the last block, which gets no gradient.

    Args:
        name: in logs.
        block: of the exit.
        last: number of the last block.

    Reference: Zhang et al. (2019), arXiv:1905.08094, section 3; features are [CLS] states here, which need no layer
    that fits their sizes.
    """

    unit = "squared distance"
    formula = "squared distance of the [CLS] state to the last block’s"
    levels = ("sequence",)
    needs_teacher = False

    def __init__(self, name: str, weight: Weight, block: int, last: int):
        super().__init__(weight)
        vars(self).update(name=name)
        self.block, self.last = block, last

    def counted_rows(self) -> str:
        return "cls"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(hidden=frozenset({(self.block, "cls"), (self.last, "cls")}))

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        states, deepest = (student.hidden[block, "cls"].float() for block in (self.block, self.last))
        return F.mse_loss(states, deepest.detach(), reduction="sum")
