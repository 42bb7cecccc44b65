"""`DownstreamProbe`: a cheap score on another task, every so many steps of a distillation of a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.processes import from_main_process

logger = get_logger(__name__)

PROBE_ACCURACY = "probe_accuracy"
"""Log key of the score."""


class DownstreamProbe(TrainerCallback):
    """A callback that logs a score of the student before the first step, every so many steps, and after the last.

    The main process computes it, on the averaged weights if there are any; the others wait. Training itself does not
    change.

    Args:
        trainer: its student is scored.
        measure: model → score, which leaves the model and the random state as they are; None if it has none.
        every: steps between two scores.
        beside: what the score is compared with, in words.
    """

    def __init__(self, trainer: Any, measure: Callable[[PreTrainedModel], float | None], every: int, beside: str = ""):
        self.trainer, self.measure, self.every, self.beside = trainer, measure, every, beside

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score the student as it starts; one that resumes was scored then."""
        if state.global_step == 0:
            self._score(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Score the student where it is due, before a checkpoint of the step is saved."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._score(state)

    def _score(self, state: TrainerState) -> None:
        """Log the score in every process, as each keeps the whole log."""
        score = from_main_process(self._measured)
        if score is not None:
            logger.info(f"probe at step {state.global_step}: accuracy {score:.3f}{self.beside}")
            self.trainer.log({PROBE_ACCURACY: score})

    def _measured(self) -> float | None:
        with self.trainer.extensions.evaluated():
            return self.measure(self.trainer.accelerator.unwrap_model(self.trainer.model))
