"""Preemption: on SIGTERM training saves a checkpoint and ends, whatever it is at."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, has_length

from distil_nlp.errors import Preempted

AGREE_EVERY = 10
"""Steps, of training or of an evaluation, between two checks of several processes whether any of them got SIGTERM; a
single process checks each step."""


class EvaluationStopped(Exception):
    """An evaluation of training was broken off by SIGTERM."""


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

    An evaluation is broken off; the checkpoint then says that it is due, and the resumed training begins with it. The
    teacher's pass over the rows for a cache ends with the part that it is at.

    The `enable_jit_checkpoint` of Transformers bypasses the other callbacks, saves in the middle of a step, and leaves
    training looking finished. Several processes must stop at the same step, while the signal reaches each at its own
    time, so they communicate.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._forget()

    def _forget(self) -> None:
        self._got_sigterm = self._is_stopping = self._is_listening = False
        self._predictions = 0
        self._saved: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM in this context, which then does not end the process; raise `Preempted` at its end at last."""
        self._forget()
        self._is_listening = True
        try:
            with on_sigterm(self._note_sigterm):
                yield
                self._stop_after_training()
        except EvaluationStopped as stopped:
            raise self._preempted() from stopped
        finally:
            self._forget()

    def _note_sigterm(self) -> None:
        self._got_sigterm = True

    def got_sigterm(self) -> bool:
        """Return whether this process was told to stop."""
        return self._got_sigterm

    def stop_if_told(self) -> None:
        """Raise `Preempted` before the first step, if a process got SIGTERM. Every process must call this."""
        if self._is_listening and self._agreed():
            raise self._preempted()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do the evaluation that was broken off when the checkpoint was saved."""
        callbacks: Any = state.stateful_callbacks  # a dict, once the trainer has started
        saved = callbacks.get("TrainerControl")
        if state.global_step and isinstance(saved, dict) and saved.get("args", {}).get("should_evaluate"):
            self.trainer.evaluate_again()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint if a process got SIGTERM; after the last step of an epoch that is left to its end."""
        if not (_by_epochs(args) and state.epoch % 1 == 0) and self._should_stop(state.global_step):
            self._is_stopping = control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint if a process got SIGTERM."""
        if _by_epochs(args) and self._agreed():
            self._is_stopping = control.should_save = True

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Break an evaluation of training off if a process got SIGTERM."""
        alone = self.trainer.accelerator.num_processes == 1
        if not self._is_listening or not (alone or has_length(eval_dataloader)):  # parts of a stream differ in length
            return
        self._predictions += 1
        if self._should_stop(self._predictions):
            raise EvaluationStopped

    def _should_stop(self, step: int) -> bool:
        alone = self.trainer.accelerator.num_processes == 1
        return self._got_sigterm if alone else step % AGREE_EVERY == 0 and self._agreed()

    def _agreed(self) -> bool:
        """Return whether any process got SIGTERM."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return self._got_sigterm
        flag = torch.tensor(float(self._got_sigterm), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum").item())

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raise `Preempted` once the checkpoint that was asked for is saved."""
        self._saved = state.global_step
        if self._is_stopping:
            self.trainer.accelerator.wait_for_everyone()  # the main process has marked the checkpoint as complete
            raise self._preempted()

    def save(self) -> NoReturn:
        """Save a checkpoint now, and raise `Preempted`."""
        self._is_stopping = True
        self.trainer.save_checkpoint()
        raise self._preempted()

    def _stop_after_training(self) -> None:
        """Raise `Preempted` if a process got SIGTERM after the last step, with that step saved.

        Not where the best checkpoint's weights have replaced those of the last step: that one was saved before, if it
        was due.
        """
        if not self._agreed():
            return
        if self._saved == self.trainer.state.global_step or self.trainer.args.load_best_model_at_end:
            raise self._preempted()
        self.save()

    def _preempted(self) -> Preempted:
        state, folder = self.trainer.state, self.trainer.args.output_dir
        done = f"step {self._saved} of {state.max_steps} is saved in {folder}"
        if self._saved is None:
            done = f"no step since the last checkpoint in {folder}"
        return Preempted(f"told to stop (SIGTERM) / {done} / the same command carries on from there")


def _by_epochs(args: TrainingArguments) -> bool:
    """Return whether something is due at the end of an epoch, which a checkpoint of its last step would leave out."""
    return IntervalStrategy.EPOCH in (args.eval_strategy, args.save_strategy)
