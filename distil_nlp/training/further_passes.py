"""Further passes: a forward and backward of a micro-batch besides the student's own, which extensions ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from distil_nlp.training.extension import RunningExtension


@dataclass(frozen=True)
class FurtherPass:
    """A forward and backward on the same rows, with the same outputs of the teacher; its gradient is added.

    Attributes:
        sort: passes of one sort take as many operations per token.
        weight: of the objective in it.
        running: the context in which forward and backward run.
        add: is told the objective's value of each micro-batch, before the weight.
    """

    sort: str
    weight: float
    running: Callable[[], AbstractContextManager[None]]
    add: Callable[[Tensor], None]


class FurtherPasses:
    """The further passes of a training.

    Args:
        extensions: all of the training.

    Attributes:
        now: the one that runs; None in the student's own pass.
        flops_per_token: sort → operations of a pass, as far as they were counted.
        flops: those that this process has taken since training started.
    """

    def __init__(self, extensions: Iterable[RunningExtension] = ()):
        self._extensions = [one for one in extensions if one.takes_further_passes]
        self.now: FurtherPass | None = None
        self.flops_per_token: dict[str, float] = {}
        self.flops = 0.0

    @property
    def are_taken(self) -> bool:
        """Whether some steps have any."""
        return bool(self._extensions)

    def start(self) -> None:
        """Forget what was summed, where training starts."""
        self.flops = 0.0

    def of_step(self, step: int, max_steps: int) -> list[FurtherPass]:
        """Return those of an optimiser step, from 0."""
        asked = [one.further_pass(step, max_steps) for one in self._extensions]
        return [one for one in asked if one is not None]

    @contextmanager
    def taking(self, one: FurtherPass) -> Iterator[None]:
        """Within this context, forward and backward are those of a further pass."""
        self.now = one
        try:
            with one.running():
                yield
        finally:
            self.now = None
