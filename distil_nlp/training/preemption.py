"""A machine that is about to be taken away says SIGTERM: training saves a checkpoint and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

AGREE_EVERY = 10
"""Steps after which several processes ask each other whether one was told to stop; one process alone looks at each."""


class Preempted(Exception):
    """Training was told to stop, and left a checkpoint to carry on from."""


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Within, SIGTERM calls `act` and is no longer the end; only in the main thread, where Python lets one listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class PreemptionCallback(TrainerCallback):
    """On SIGTERM lets the step end, saves a checkpoint and raises `Preempted`.

    Transformers' own `enable_jit_checkpoint` saves past the other callbacks and in the middle of a step, and leaves the
    program thinking that training is finished. Several processes must stop at the same step, while the signal reaches
    each at its own time, so they agree.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._told = self._agreed = False

    def listening(self) -> AbstractContextManager[None]:
        """SIGTERM is a word to this, and no longer the end."""
        return on_sigterm(self._listen)

    def _listen(self) -> None:
        self._told = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._should_stop(state.global_step):
            self._agreed = control.should_save = True

    def _should_stop(self, step: int) -> bool:
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return self._told
        if step % AGREE_EVERY:
            return False
        told = torch.tensor(float(self._told), device=accelerator.device)
        return bool(accelerator.reduce(told, "sum").item())

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._agreed:
            self.trainer.accelerator.wait_for_everyone()  # the main process has marked the checkpoint as complete
            raise Preempted(
                f"told to stop (SIGTERM) / step {state.global_step} of {state.max_steps} is saved in "
                f"{args.output_dir} / the same command carries on from there"
            )
