"""`WeightAverage`: an exponential moving average of the student's weights, evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.training.extension import Extension, RunningExtension, TrainingSetup

AVERAGE = "ema.safetensors"
"""File of a checkpoint with the average; `model.safetensors` beside it has the weights of the step."""


def decay_at(update: int, decay: float) -> float:
    """Return the decay of an update, the first of which is 1: min(decay, (1 + update) / (10 + update)).

    An average of few updates would otherwise be the initial weights: 0.999 leaves them 61 % after 500.

    Reference: TensorFlow's `ExponentialMovingAverage`, with `num_updates`.
    """
    return min(decay, (1 + update) / (10 + update))


@dataclass(frozen=True)
class EMA(Extension):
    """Settings of an exponential moving average of the student's weights.

    Attributes:
        decay: upper limit of the decay, above 0 and below 1.
    """

    decay: float = 0.999

    @property
    def sentence(self) -> str:
        """Return the scheme in a sentence for people."""
        return (
            "The student is an exponential moving average of its weights over the steps of its training, with a decay "
            f"of up to {self.decay:g}."
        )

    def validate(self, setup: TrainingSetup) -> None:
        validate_averaging(self.decay, setup.is_sharded)

    def state_bytes(self, student: PreTrainedModel) -> int:
        return 4 * student.num_parameters()

    def begin(self, trainer: Any, setup: TrainingSetup) -> WeightAverage:
        return WeightAverage(trainer, self.decay)


class WeightAverage(TrainerCallback, RunningExtension):
    """Keeps average ← d · average + (1 − d) · weights after each step of the optimiser, d = `decay_at(step, decay)`.

    The average starts as the initial weights, and has all parameters of the student, projections that only training
    needs included; buffers are the model's own. Training goes on with the weights themselves. In several processes
    each keeps the same average.

    Args:
        trainer: its model is averaged.
        decay: upper limit of d, in (0, 1).

    Attributes:
        weights: parameter → average.
        updates: steps of the optimiser that are in the average.
        is_training: whether the model has the weights of a step, which `evaluated` replaces.

    Reference: Polyak, Juditsky 1992, with exponentially decaying weights; Tarvainen, Valpola 2017, arXiv:1703.01780,
    section 2, where the average is the teacher.
    """

    def __init__(self, trainer: Any, decay: float):
        self.trainer, self.decay = trainer, decay
        self.weights: dict[str, Tensor] = {}
        self.updates = 0
        self.is_training = False
        self._is_loaded = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the model's weights, or go on with the average of the checkpoint that was loaded."""
        parameters = self._parameters()
        if self._is_loaded:
            self.weights = {name: self.weights[name].to(value.device) for name, value in parameters.items()}
        else:
            self.updates, self.weights = 0, {name: value.detach().clone() for name, value in parameters.items()}
        self._is_loaded, self.is_training = False, True

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the step's weights to the average, unless the step was skipped for an overflow (fp16)."""
        if self.trainer.accelerator.optimizer_step_was_skipped:
            return
        self.updates += 1
        parameters = self._parameters()
        average = [self.weights[name] for name in parameters]
        get_ema_multi_avg_fn(decay_at(self.updates, self.decay))(average, [*parameters.values()], self.updates)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Within this context the model has the averaged weights; after training it has them for good."""
        if not self.is_training:
            yield
            return
        before = {name: value.detach().clone() for name, value in self._parameters().items()}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(before)

    def end(self) -> None:
        """Give the model the averaged weights for good."""
        self._put(self.weights)
        self.is_training = self._is_loaded = False

    def save(self, folder: Path) -> None:
        """Write the average beside the weights of a checkpoint."""
        save_file(self.weights, folder / AVERAGE, {"updates": str(self.updates)})

    def load(self, folder: Path) -> None:
        """Read the average of a checkpoint.

        Raises:
            UserError: if it has none, or that of other weights.
        """
        names = self._parameters().keys()
        if not (folder / AVERAGE).is_file():
            raise _no_average(folder, "none")
        with safe_open(folder / AVERAGE, "pt") as file:
            if set(file.keys()) != set(names):
                raise _no_average(folder, "that of a model with other parameters")
            self.weights = {name: file.get_tensor(name) for name in names}
            self.updates = int(file.metadata()["updates"])
        self._is_loaded = True

    def _parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.trainer.accelerator.unwrap_model(self.trainer.model).named_parameters())

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters().items():
            parameter.copy_(weights[name])


def validate_averaging(decay: float, is_sharded: bool) -> None:
    """Raise UserError for a decay that is none, and where a process has a part of the weights."""
    if not 0 < decay < 1:
        raise UserError("student.ema", "a decay above 0 and below 1", f"{decay:g}", fix="take 0.999, say")
    if is_sharded:
        raise UserError(
            "student.ema",
            "one process or DDP",
            "FSDP or DeepSpeed",
            why="each process has a part of the weights, or trains a copy of them in another precision",
            fix="use DDP, or leave student.ema out",
        )


def _no_average(folder: Path, got: str) -> UserError:
    return UserError(
        "student.ema",
        f"the averaged weights in {folder}",
        got,
        why="training would go on with another average than it had",
        fix="start anew (run.overwrite=true), or leave student.ema as it was in that training",
    )
