"""`ChangingTeacher`: a source of signals that changes while the student learns, and is kept in checkpoints."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from distil_nlp.teachers.source import TeacherSource


class ChangingTeacher(TeacherSource):
    """A source that follows training, for schemes in which the student teaches itself or its teacher grows.

    The trainer calls these methods in every process, at the same steps.

    Attributes:
        reads_weights: True if it reads the student's weights, which must then be whole in every process.
    """

    reads_weights: bool = False

    def start(self, student: nn.Module) -> None:
        """Begin anew, before the first step of a training that is not resumed."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Note the epoch, from 0, and the number of epochs of the whole training."""

    def begin_step(self, step: int, steps: int) -> None:
        """Note the step of the optimiser, from 0, and the number of steps of the whole training."""

    def end_step(self, step: int, student: nn.Module) -> None:
        """Follow the student after a step of the optimiser.

        Args:
            step: number of steps so far.
            student: its new weights.
        """

    def exchange(self, total: Callable[[Tensor], Tensor]) -> None:
        """Exchange what the processes know, at the end of an epoch and before a checkpoint.

        Args:
            total: a tensor → its sum over all processes.
        """

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, the same in all processes; {} for nothing."""
        return {}

    def state_bytes(self, rows: int) -> int:
        """Return the size of `state` once it is full, of a training on so many rows."""
        return 0

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take what a checkpoint kept."""
