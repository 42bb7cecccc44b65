"""Module replacing: in training, each of the student's blocks stands in for a group of the teacher's by chance.

BERT-of-Theseus (Xu et al. 2020, arXiv:2002.02925). In each step every module i draws r_i ~ Bernoulli(p) once, for the
whole batch, and

    y_i = r_i · student_i(x) + (1 − r_i) · teacher_group_i(x),      p = min(1, b + k · t),

so that the student's blocks learn among the teacher's, and alone from the step on at which p is 1. Here p rises from
`start` to 1 at the fraction `full_at` of training, whatever its length.

Beyond the paper, whose loss is the task's alone, any terms on outputs and hidden states go with it: a state is that
which leaves the module, whichever ran. The authors' code trains the student's blocks only, which start from the
teacher's first, and runs the teacher's with dropout; here embeddings and head learn too, a block starts from the last
of its group, and the teacher's run without dropout, as they do where it teaches.

The draws are a function of (seed, step): the same in all processes and micro-batches of a step, after a resume, and
when a forward is computed again for its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import ensemble_members, layer_stack
from distil_nlp.signals.types import SignalRequest
from distil_nlp.teachers.frozen import Freeze
from distil_nlp.training.extension import Extension, RunningExtension, TrainingSetup, restore_forward

_STREAM = 2002_02925
"""Keeps these draws apart from others of the same seed and step."""


@dataclass(frozen=True)
class Replacing(Extension):
    """Settings of module replacing; the teacher is needed for it even where no term reads it.

    Attributes:
        layers: the last of the teacher's blocks that each of the student's stands in for, from 0; a group begins where
            the one before it ends. [1, 3, 5] are the groups 0–1, 2–3 and 4–5.
        start: probability p at the first step.
        full_at: fraction of training from which p is 1.
    """

    skips_parameters: ClassVar[bool] = True
    runs_teacher: ClassVar[bool] = True

    layers: Sequence[int]
    start: float = 0.3
    full_at: float = 0.6

    def validate(self, setup: TrainingSetup) -> None:
        validate_replaced_models(setup.student, setup.teacher, self)
        validate_replacing(setup.args, setup.request, setup.is_sharded)

    def begin(self, trainer: Any, setup: TrainingSetup) -> ModuleReplacement:
        running = ModuleReplacement(setup.student, setup.teacher, self, setup.args.seed)
        running.to(setup.args.device)
        return running

    def rate(self, progress: float) -> float:
        """Return p at a fraction of training."""
        return min(self.start + (1 - self.start) * progress / self.full_at, 1.0)

    def draws(self, seed: int, step: int, progress: float) -> list[bool]:
        """Return r: for each of the student's blocks, whether it runs in a step."""
        uniform = np.random.default_rng((seed, step, _STREAM)).random(len(self.layers))
        return [bool(value < self.rate(progress)) for value in uniform]

    def groups(self, teacher_layers: int) -> list[range]:
        """Return the teacher's blocks that each of the student's stands in for.

        Raises:
            UserError: unless the layers increase, and end at the teacher's last.
        """
        layers, before = list(self.layers), [-1, *self.layers]
        is_increasing = all(one < other for one, other in zip(before, layers, strict=False))
        if not layers or not is_increasing or layers[-1] != teacher_layers - 1:
            raise UserError(
                "student.replacing",
                f"student.layers that increase and end at the teacher's last layer, {teacher_layers - 1}",
                str(layers),
                why="each of the student's layers stands in for those of the teacher's up to its own",
                fix="use student.layers=every_other",
            )
        return [range(one + 1, other + 1) for one, other in zip(before, layers, strict=False)]

    @property
    def sentence(self) -> str:
        """Return the scheme in a sentence for people."""
        return (
            "In training each student layer stands in for its group of frozen teacher layers with a probability that "
            f"rises from {self.start:g} to 1 over the first {100 * self.full_at:g} % (module replacing, "
            "BERT-of-Theseus, arXiv:2002.02925)."
        )


class ModuleReplacement(RunningExtension):
    """The patch of a student's blocks, in whose stead the teacher's run where the draws say so, in train mode alone.

    The teacher's blocks are no modules of the student: they are neither trained, nor wrapped or saved with it.

    Args:
        student: its blocks' forwards are replaced; a compiled one stays compiled. `validate_replaced_models` has
            accepted it.
        teacher: frozen and in eval mode until `remove`; of an ensemble, the first.
        replacing: the settings.
        seed: of the draws.
    """

    def __init__(self, student: PreTrainedModel, teacher: Any, replacing: Replacing, seed: int):
        self.replacing, self._seed = replacing, seed
        self._teacher: Any = ensemble_members(teacher)[0]
        self.running: list[bool] | None = None
        stack = layer_stack(self._teacher)
        groups = [[stack[i] for i in group] for group in replacing.groups(len(stack))]
        self._freeze = Freeze(self._teacher)
        self._patches = [
            _Patch(self, number, block, group)
            for number, (block, group) in enumerate(zip(layer_stack(student), groups, strict=True))
        ]

    def begin_forward(self, step: int, progress: float) -> None:
        """Draw which of the student's blocks run from now on."""
        self.running = self.replacing.draws(self._seed, step, progress)

    def logs(self, accelerator: Any, step: int, progress: float) -> dict[str, float]:
        return {"replacing_rate": self.replacing.rate(progress)}

    def to(self, device: torch.device | str) -> None:
        """Move the teacher to a device."""
        self._teacher.to(device)

    def remove(self) -> None:
        """Give all blocks their own forwards back, and the teacher its mode."""
        self.running = None
        for patch in self._patches:
            patch.remove()
        self._patches = []
        self._freeze.remove()


class _Patch:
    """The forward of one of the student's blocks, which may run a group of others in its stead."""

    def __init__(self, replacement: ModuleReplacement, number: int, block: nn.Module, group: list[nn.Module]):
        before: Callable[..., Any] | None = block.__dict__.get("forward")  # a compiled one

        def forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if replacement.running is None or replacement.running[number] or not block.training:
                return before(*args, **kwargs) if before is not None else type(block).forward(block, *args, **kwargs)
            return _run_in_turn(group, args, kwargs)

        self._block, self._before = block, before
        self._forward = MethodType(forward, block)
        block.forward = self._forward

    def remove(self) -> None:
        restore_forward(self._block, self._forward, self._before)


def _run_in_turn(blocks: list[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the output of the last of some blocks, each of which gets the states of the one before.

    They run in their own precision, as they do where the teacher teaches, and give states in that of the student's.
    """
    states, given = (args[0] if args else kwargs["hidden_states"]), next(blocks[0].parameters())
    args, kwargs, output = _in_precision(args, given.dtype), _in_precision(kwargs, given.dtype), None
    with torch.autocast(states.device.type, enabled=False):
        for block in blocks:
            output = block(*args, **kwargs)
            result = output[0] if isinstance(output, tuple) else output
            if args:
                args = (result, *args[1:])
            else:
                kwargs = kwargs | {"hidden_states": result}
    return _in_precision(output, states.dtype)


def _in_precision(value: Any, dtype: torch.dtype) -> Any:
    """Return arguments or outputs with all that is floating in a precision."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_in_precision(one, dtype) for one in value)
    if isinstance(value, dict):
        return {name: _in_precision(one, dtype) for name, one in value.items()}
    return value


def validate_replaced_models(student: PreTrainedModel, teacher: Any, replacing: Replacing) -> None:
    """Raise an error unless the student's blocks can stand in for the teacher's.

    Raises:
        UserError: for blocks of another kind or width, shared ones or several parts of one, for groups of unlike
            attention, and whatever `Replacing.groups` raises.
    """
    if not isinstance(teacher, nn.Module):
        raise UserError("replacing", "a teacher that is a model", "none", why="its layers run in training")
    teacher = ensemble_members(teacher)[0]
    theirs, ours = layer_stack(teacher), layer_stack(student)
    groups = replacing.groups(len(theirs))
    kinds = {type(block) for block in (*theirs, *ours)}
    widths = [teacher.config.hidden_size, student.config.hidden_size]
    is_whole = len({id(block) for block in ours}) == len(ours) and nn.ModuleList not in kinds
    if len(kinds) > 1 or not is_whole or widths[0] != widths[1] or len(ours) != len(groups):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UserError(
            "student.replacing",
            "a student with the teacher's width and kind of layers, each one module, and a layer for each group",
            f"{len(ours)} layers for {len(groups)} groups, of {names}, widths {widths[0]} and {widths[1]}",
            why="its layers could not take the place of the teacher's",
            fix="leave student.architecture and student.config.hidden_size as they are, or leave student.replacing out",
        )
    _validate_types(student.config, teacher.config, groups)


def _validate_types(student: Any, teacher: Any, groups: list[range]) -> None:
    """Raise UserError for groups of unlike attention: a block gets the mask and positions of its own alone."""
    ours, theirs = getattr(student, "layer_types", None), getattr(teacher, "layer_types", None)
    if not ours or not theirs:
        return
    unlike = [i for i, group in enumerate(groups) if {theirs[j] for j in group} != {ours[i]}]
    if unlike:
        group = groups[unlike[0]]
        raise UserError(
            "student.replacing",
            "groups of layers with one type of attention",
            f"{', '.join(theirs[j] for j in group)} in the teacher's layers {group[0]} to {group[-1]}",
            why="a layer gets the mask and the positions of its own type",
            fix="choose student.layers so that no group has two types, or leave student.replacing out",
        )


def validate_replacing(args: TrainingArguments, request: SignalRequest, is_sharded: bool) -> None:
    """Raise an error for what does not go together with module replacing.

    Args:
        args: of training.
        request: signals of the student.
        is_sharded: whether FSDP or DeepSpeed divide the student.

    Raises:
        UserError: for terms on what a block that does not run has not, for sharding, and for DDP that does not look for
            unused parameters.
    """
    if request.attention or request.activations or request.input_gradient:
        raise UserError(
            "student.replacing",
            "terms on outputs, hidden states or weights",
            "terms on attention, feed-forward units or input gradients",
            why="a layer that the teacher's stand in for has none in that step",
            fix="set the weights of those terms to 0, or leave student.replacing out",
        )
    if is_sharded:
        raise UserError(
            "student.replacing",
            "one process or DDP",
            "FSDP or DeepSpeed",
            why="they expect the same layers to run in each step",
            fix="use DDP, or leave student.replacing out",
        )
    if args.ddp_find_unused_parameters is False:
        raise UserError(
            "training.ddp_find_unused_parameters",
            "true, or none, with student.replacing",
            "false",
            why="layers that do not run in a step have no gradient to exchange",
            fix="leave it out",
        )
