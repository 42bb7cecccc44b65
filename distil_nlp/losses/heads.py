"""Terms between the heads of one student: what a head learns from the others, which trains together with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.soft_targets import SOFT_LOSSES
from distil_nlp.objective import LossTerm, OutputTerm, Role, Weight
from distil_nlp.objective.heads import LogitsOf
from distil_nlp.signals.types import SignalRequest, Signals


class FromHeads(OutputTerm):
    """What one head learns from others: the mean over them of what `soft_target_kl` is for the kind of task.

    Others get no gradient.

    Args:
        name: in logs.
        learner: the head that learns.
        sources: the heads that it learns from.
        temperature: T.

    Reference: Zhang et al. (2018), arXiv:1706.00384, section 3, at T = 1.
    """

    unit = "nats × T²"
    formula = "KL(other head ‖ this head) of the softened outputs, times T²"
    formula_of_regression = "squared error to another head’s output"
    formulas = {"labels": "KL(other head ‖ this head) of each label’s softened probability, summed, times T²"}
    outputs = ("distribution", "number", "labels", "score")
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
        loss = SOFT_LOSSES[self.kind.output]
        total: Any = sum(loss(learner, source, self.temperature) for source in sources)
        return total / len(sources)


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
