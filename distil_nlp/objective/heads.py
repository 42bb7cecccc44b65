"""The heads of a student that train together: its own, those of exits, of branches, of peers."""

from __future__ import annotations

from dataclasses import dataclass

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


OWN_LOGITS = LogitsOf()
"""The student's own head."""
