"""Teachers that are averages of the student's own weights: of all steps with decay, or of the last checkpoints."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.source import TeacherSource

_TEACHER = "teacher."


class AveragedTeacher(FrozenTeacher, ChangingTeacher):
    """A copy of the student, in eval mode and in its dtype, whose weights follow the student's after each step.

    Every process computes the same averages, of the same weights. Checkpoints keep them as they are.

    Args:
        student: copied; its own modes and weights stay.
    """

    reads_weights = True

    def __init__(self, student: PreTrainedModel):
        super().__init__(_copy(student))

    def for_trainer(self) -> TeacherSource:
        """Return itself.

        Raises:
            UserError: if another trainer has it, whose student it follows.
        """
        if self._hooks:
            raise UserError(
                "teacher",
                f"a {type(self).__name__} for one trainer",
                "one that another trainer has",
                why="it follows the student of that one",
                fix="make another one of this student",
            )
        return self

    def start(self, student: nn.Module) -> None:
        """Begin with the student's own weights."""
        self._set(_weights(student))

    def state(self) -> dict[str, Tensor]:
        return {f"{_TEACHER}{name}": value for name, value in _weights(self.model).items()}

    def state_bytes(self, rows: int) -> int:
        return sum(value.nbytes for value in _weights(self.model).values())

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._set({name.removeprefix(_TEACHER): v for name, v in state.items() if name.startswith(_TEACHER)})

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        for name, own in _weights(self.model).items():
            own.copy_(weights[name])


class EMATeacher(AveragedTeacher):
    """The exponential moving average of the student's weights: θ' ← d_t · θ' + (1 − d_t) · θ after step t = 1, 2, ….

    d_t = min(d, 1 − 1 / (t + 1)): as long as the mean of all weights so far, the start's included, is of fewer weights
    than the moving average is, it is that mean (Mean Teacher, Tarvainen, Valpola 2017, arXiv:1703.01780, and its code).

    Args:
        student: see `AveragedTeacher`.
        decay: d, in (0, 1).
    """

    def __init__(self, student: PreTrainedModel, decay: float = 0.99):
        super().__init__(student)
        self.decay = decay

    def end_step(self, step: int, student: nn.Module) -> None:
        own, new = _weights(self.model), _weights(student)
        average = get_ema_multi_avg_fn(min(self.decay, step / (step + 1)))
        average([*own.values()], [new[name] for name in own], None)


class CheckpointMeanTeacher(AveragedTeacher):
    """The mean of the student's weights at its last checkpoints: θ' = 1/K · Σ_k θ_{t − k}, k = 1 … K, after step t.

    θ_t, the student itself, is not among them; fewer are averaged where there are not so many yet. This is SDA (Xu,
    Qiu, Zhou, Huang 2020, arXiv:2002.10345), whose student learns from the labels and by the squared error of its
    logits to the teacher's. With `every` above 1, checkpoints are so many steps apart; the teacher changes as often.

    Args:
        student: see `AveragedTeacher`.
        count: K. All K are kept on the device, and in the training's own checkpoints, beside their mean.
        every: steps between two of them.
    """

    def __init__(self, student: PreTrainedModel, count: int = 5, every: int = 1):
        super().__init__(student)
        self.count, self.every = count, every
        self._pool: deque[dict[str, Tensor]] = deque(maxlen=count)

    def start(self, student: nn.Module) -> None:
        super().start(student)
        self._pool.clear()
        self._pool.append(_snapshot(student))

    def end_step(self, step: int, student: nn.Module) -> None:
        if step % self.every:
            return
        self._set({name: _mean([kept[name] for kept in self._pool]) for name in self._pool[0]})
        self._pool.append(_snapshot(student))

    def state(self) -> dict[str, Tensor]:
        kept = {f"{i}.{name}": value for i, pool in enumerate(self._pool) for name, value in pool.items()}
        return super().state() | kept

    def state_bytes(self, rows: int) -> int:
        return (self.count + 1) * super().state_bytes(rows)

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self._pool.clear()
        for i in range(self.count):
            kept = {name.removeprefix(f"{i}."): v for name, v in state.items() if name.startswith(f"{i}.")}
            if kept:
                self._pool.append(kept)


def _copy(student: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same class and weights, without hooks and whatever a trainer has added to the student."""
    model_class: Any = type(student)
    with torch.random.fork_rng(devices=[]):
        model = model_class._from_config(copy.deepcopy(student.config), dtype=student.dtype)
    known = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in student.state_dict().items() if name in known})
    return model.to(student.device).eval()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and floating-point buffers by name, tied ones once."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach() for name, value in named.items() if value.is_floating_point()}


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in _weights(model).items()}


def _mean(values: list[Tensor]) -> Tensor:
    """Return the mean, added up in order, so that it is the same after a resume."""
    return sum(values[1:], values[0]) / len(values)
