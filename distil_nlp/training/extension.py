"""The seam for schemes that reach into the student's steps: settings that a trainer takes, and what they put on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.signals.types import SignalRequest
from distil_nlp.training.further_passes import FurtherPass

if TYPE_CHECKING:
    from distil_nlp.training.trainer import DistillationTrainer

_Running = TypeVar("_Running", bound="RunningExtension")


@dataclass(frozen=True)
class TrainingSetup:
    """What is known of a training when its trainer is built.

    Attributes:
        student: the model to train.
        teacher: the model, or ensemble, that it was made of; None without any.
        args: training arguments.
        request: signals of the student that terms read.
        is_joint: whether further modules train together with the student (exits, peers, branches).
        is_sharded: whether FSDP or DeepSpeed divide the student.
        extensions: all of the training.
    """

    student: PreTrainedModel
    teacher: Any
    args: TrainingArguments
    request: SignalRequest
    is_joint: bool = False
    is_sharded: bool = False
    extensions: Sequence[Extension] = ()

    @property
    def is_widened(self) -> bool:
        """Whether a wider net trains around the student."""
        return any(one.widens for one in self.extensions)


class Extension:
    """Settings of what a training does besides plain distillation.

    A subclass is a frozen dataclass. By default nothing is refused, and nothing carried.

    Attributes:
        skips_parameters: True if some parameters of the student get no gradient in some steps.
        runs_teacher: True if the teacher's own layers run in training, whatever is cached of its outputs.
        widens: True if a wider net trains around the student.
        undecayed: names of its modules whose parameters do not decay.
    """

    skips_parameters: ClassVar[bool] = False
    runs_teacher: ClassVar[bool] = False
    widens: ClassVar[bool] = False
    undecayed: ClassVar[frozenset[str]] = frozenset()

    @property
    def sentence(self) -> str:
        """The scheme in a sentence for people."""
        raise NotImplementedError

    @property
    def is_on(self) -> bool:
        """Whether the settings have any effect."""
        return True

    def validate(self, setup: TrainingSetup) -> None:
        """Raise UserError for what does not go together; called before the trainer is built, and as it is."""

    def modules(self, setup: TrainingSetup) -> dict[str, nn.Module]:
        """Return modules that the student carries in training, by name; their parameters are trained."""
        return {}

    def state_bytes(self, student: PreTrainedModel) -> int:
        """Return the bytes of a checkpoint beside the student's, with AdamW's moments of what is trained; for a plan.

        Args:
            student: a model of its shape.
        """
        return 0

    def begin(self, trainer: DistillationTrainer, setup: TrainingSetup) -> RunningExtension:
        """Put the extension on a trainer whose student is on its device and carries the modules."""
        raise NotImplementedError


class RunningExtension:
    """An extension at work on a trainer. A `TrainerCallback` too is called back; by default nothing is done.

    Attributes:
        takes_further_passes: True if some steps have a further pass, see `further_pass`.
    """

    takes_further_passes: ClassVar[bool] = False

    def remove(self) -> None:
        """Take off what was put on the models."""

    def to(self, device: torch.device | str) -> None:
        """Move what is no module of the student to a device."""

    def start(self, step: int) -> None:
        """Forget what was counted, where training starts at a step."""

    def begin_step(self, step: int, max_steps: int) -> None:
        """Prepare an optimiser step, from 0."""

    def begin_forward(self, step: int, progress: float) -> None:
        """Prepare a forward of the student in training."""

    def further_pass(self, step: int, max_steps: int) -> FurtherPass | None:
        """Return the further pass of each micro-batch of an optimiser step, from 0; None for a step without one."""
        return None

    def logs(self, accelerator: Any, step: int, progress: float) -> dict[str, float]:
        """Return what the training log gets, of the steps since the last one."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the state beside the weights of a checkpoint; in the main process alone."""

    def load(self, folder: Path) -> None:
        """Read the state of a checkpoint."""

    @property
    def is_complete(self) -> bool:
        """Whether the student is what was asked for, so that a checkpoint may be the best."""
        return True

    def evaluated(self) -> AbstractContextManager[None]:
        """Return the context in which the student is evaluated."""
        return nullcontext()

    def end(self) -> None:
        """Leave the student as it is to be saved, after training."""


class RunningExtensions:
    """All extensions that are at work on a trainer, in their order.

    Args:
        running: each of them.
    """

    def __init__(self, running: Sequence[RunningExtension] = ()):
        self._running = list(running)

    def __iter__(self) -> Iterator[RunningExtension]:
        return iter(self._running)

    def of(self, kind: type[_Running]) -> _Running | None:
        """Return the one of a kind, if there is one."""
        return next((one for one in self if isinstance(one, kind)), None)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Within this context the student is as it is to be evaluated."""
        with ExitStack() as stack:
            for one in self:
                stack.enter_context(one.evaluated())
            yield

    def logs(self, accelerator: Any, step: int, progress: float) -> dict[str, float]:
        """Return what the training log gets from all."""
        return {name: value for one in self for name, value in one.logs(accelerator, step, progress).items()}


def restore_forward(module: nn.Module, patched: Any, before: Any) -> None:
    """Give a module back the forward that it had before it was patched.

    Args:
        module: whose `forward` was set.
        patched: what it was set to; another trainer that has patched it since passes through this, and it stays.
        before: what stood in its place, of an earlier patch; None for the class's own.
    """
    if module.__dict__.get("forward") is not patched:
        return
    del module.__dict__["forward"]
    if before is not None:
        module.forward = before
