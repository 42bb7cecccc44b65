"""`Basis`: the machine that a plan is for, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distil_nlp.pipeline.planning.accelerators import UTILIZATION, Accelerator
from distil_nlp.reporting.formatting import large, percent

_WATT_SECONDS = 3.6e6
"""Of a kilowatt-hour."""


@dataclass(frozen=True)
class Basis:
    """The machine that a plan is for: this one, whose steps are timed, or an accelerator, by its figures.

    Attributes:
        accelerator: None for this machine.
        utilization: share of the accelerator's peak.
        processes: that share the rows, each on an accelerator, or a machine, of its own.
        price_per_hour: of each of them; None if nobody said.
        currency: of the price.
        watts: of each of them; by default those of the accelerator. None if nobody said.
    """

    accelerator: Accelerator | None = None
    utilization: float = UTILIZATION
    processes: int = 1
    price_per_hour: float | None = None
    currency: str = "USD"
    watts: float | None = None

    @property
    def is_timed(self) -> bool:
        """Whether steps are timed on this machine."""
        return self.accelerator is None

    @property
    def power(self) -> float | None:
        """Watts of each process's machine; None if unknown."""
        if self.watts is not None or self.accelerator is None:
            return self.watts
        return self.accelerator.watts

    @property
    def sentence(self) -> str:
        """What the plan goes by, in words."""
        own, others = self.accelerator, f"{self.processes} × " if self.processes > 1 else ""
        if own is None:
            return f"{others}this machine, by steps timed now; other load on it counts"
        rate = f"{percent(self.utilization, 0)} of {large(own.peak_flops)}FLOP/s"
        return f"{others}{own.title}, {rate} ({own.source}); the share is assumed, give your own by --utilization"

    def seconds(self, seconds: float | None, flops: float | None) -> float:
        """Return the seconds of work that all processes share.

        Args:
            seconds: that one process took here; not looked at for an accelerator.
            flops: its operations; not looked at for this machine.
        """
        if self.accelerator is None:
            return (seconds or 0.0) / self.processes
        return (flops or 0.0) / (self.accelerator.peak_flops * self.utilization * self.processes)

    def kilowatt_hours(self, seconds: float) -> float | None:
        """Return the energy of so many seconds on all processes' machines; None if their power is unknown."""
        return None if self.power is None else self.power * self.processes * seconds / _WATT_SECONDS

    def price(self, seconds: float) -> float | None:
        """Return the price of so many seconds on all processes' machines; None if nobody said what an hour costs."""
        return None if self.price_per_hour is None else self.price_per_hour * self.processes * seconds / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return the assumptions by name."""
        own = self.accelerator
        return {
            "device": own.title if own else "this machine, timed",
            "peak_flops": own and own.peak_flops,
            "utilization": self.utilization if own else None,
            "source": own and own.source,
            "processes": self.processes,
            "watts": self.power,
            "price_per_hour": self.price_per_hour,
            "currency": self.currency,
        }
