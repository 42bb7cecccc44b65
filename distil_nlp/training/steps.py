"""Steps of `DistillationTrainer`: a micro-batch's own pass, the further ones, and their floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distil_nlp.training.flops import flop_counter
from distil_nlp.training.sharding import Sharding

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer

    from distil_nlp.objective.objective import Objective
    from distil_nlp.training.further_passes import FurtherPass, FurtherPasses
    from distil_nlp.training.gradient_probe import GradientProbe
    from distil_nlp.training.teacher_student import TeacherStudent
else:
    _Trainer = object  # a mixin, of a trainer for a type checker alone


class CountedSteps(_Trainer):
    """A mixin for `transformers.Trainer` that takes further passes of a micro-batch, and counts operations once.

    It reads `objective`, `probe`, `further`, `flops_per_token` and `teacher_student` of the trainer.
    """

    objective: Objective
    probe: GradientProbe | None
    further: FurtherPasses
    flops_per_token: float | None
    teacher_student: TeacherStudent

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Take a micro-batch's forward and backward, and those of further passes if this step has any.

        The gradients are added; in several processes they are exchanged with the last.
        """
        further = self.further.of_step(self.state.global_step, self.state.max_steps)
        if not further:
            return self._step_alone(model, inputs, *args, **kwargs)
        with self.teacher_student.asking_once():
            with self.accelerator.no_sync(model):
                loss = self._step_alone(model, inputs, *args, **kwargs)
                for one in further[:-1]:
                    self._step_further(one, model, inputs, *args, **kwargs)
            self._step_further(further[-1], model, inputs, *args, **kwargs)
        return loss

    def _step_alone(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Take a micro-batch's forward and backward; the operations of the first one are counted."""
        return self.counting_flops(inputs, partial(super().training_step, model, inputs, *args, **kwargs))

    def counting_flops(self, inputs: dict[str, Any], step: Callable[[], Tensor]) -> Tensor:
        """Take a micro-batch's step, and keep its operations per token if it is the first that they can be seen in."""
        if self.flops_per_token is not None or not self._counts_flops(inputs):
            return step()
        with flop_counter() as counter:
            loss = step()
        self.flops_per_token = counter.get_total_flops() / inputs["tokens"]
        return loss

    def _step_further(
        self, one: FurtherPass, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Take a micro-batch's further pass; the operations of each sort's first one are counted."""
        known, tokens = self.further.flops_per_token, inputs.get("tokens") or 0
        counter = flop_counter() if one.sort not in known and self._counts_flops(inputs) else None
        with self.further.taking(one), counter or nullcontext():
            super().training_step(model, inputs, *args, **kwargs)
        if counter is not None:
            known[one.sort] = counter.get_total_flops() / tokens
        self.further.flops += known.get(one.sort, 0.0) * tokens

    def _counts_flops(self, inputs: dict[str, Any]) -> bool:
        """Return whether a micro-batch's operations are those of its models alone, and can be seen."""
        is_seen = not (self.args.torch_compile or Sharding.of(self.args))
        is_seen &= not self.objective.request("student").input_gradient  # the counter cannot follow autograd.grad
        is_probed = self.probe is not None and self.probe.is_due(self.state.global_step)
        return is_seen and not is_probed and bool(inputs.get("tokens"))
