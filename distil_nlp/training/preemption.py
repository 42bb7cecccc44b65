"""Preemption: on SIGTERM training saves a checkpoint and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

AGREE_EVERY = 10
"""Steps between two checks of several processes whether any of them got SIGTERM; a single process checks each step."""


class Preempted(Exception):
    """Training was stopped by SIGTERM, and saved a checkpoint to resume from."""


@contextmanager
def on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` on SIGTERM inside the context, instead of exiting; only in the main thread, as Python requires."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class PreemptionCallback(TrainerCallback):
    """A callback that finishes the step on SIGTERM, saves a checkpoint and raises `Preempted`.

    The `enable_jit_checkpoint` of Transformers bypasses the other callbacks, saves in the middle of a step, and leaves
    training looking finished. Several processes must stop at the same step, while the signal reaches each at its own
    time, so they communicate.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._got_sigterm = self._is_stopping = False

    def listening(self) -> AbstractContextManager[None]:
        """Return a context in which SIGTERM is noted, and does not end the process."""
        return on_sigterm(self._note_sigterm)

    def _note_sigterm(self) -> None:
        self._got_sigterm = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint if a process got SIGTERM."""
        if self._should_stop(state.global_step):
            self._is_stopping = control.should_save = True

    def _should_stop(self, step: int) -> bool:
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return self._got_sigterm
        if step % AGREE_EVERY:
            return False
        flag = torch.tensor(float(self._got_sigterm), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum").item())

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raise `Preempted` once the checkpoint that was asked for is saved."""
        if self._is_stopping:
            self.trainer.accelerator.wait_for_everyone()  # the main process has marked the checkpoint as complete
            raise Preempted(
                f"told to stop (SIGTERM) / step {state.global_step} of {state.max_steps} is saved in "
                f"{args.output_dir} / the same command carries on from there"
            )
