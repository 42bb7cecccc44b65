"""The heads of a student that train together: its own, those of exits, of branches, of peers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distil_nlp.signals.types import Signals


@dataclass(frozen=True)
class LogitsOf:
    """The logits of one head.

    Attributes:
        name: of the module in the student's projections that gives them; None for the student's own.
    """

    name: str | None = None

    def __call__(self, signals: Signals) -> Tensor:
        """Return the logits, (batch, classes)."""
        return signals.logits if self.name is None else signals.projected[self.name]


@dataclass(frozen=True)
class GatedLogits(LogitsOf):
    """The sum of several heads' logits, z_e = Σ_i g_i · z_i.

    Attributes:
        name: of the module that gives the gate g, (batch, heads).
        heads: whose logits z_i are added.
    """

    heads: tuple[LogitsOf, ...] = ()

    def __call__(self, signals: Signals) -> Tensor:
        """Return the logits, (batch, classes)."""
        logits = torch.stack([head(signals) for head in self.heads], -1)
        return (logits * super().__call__(signals).unsqueeze(1)).sum(-1)


OWN_LOGITS = LogitsOf()
"""The student's own head."""
