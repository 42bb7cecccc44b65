"""Network augmentation: in training the student is a part of a wider net too, which shares its weights.

NetAug (Cai, Gan, Lin, Han 2022, arXiv:2110.08890), for small nets that under-fit. With W_t the student's weights and
W_i those of the units that an augmented net has besides,

    L_aug = L(W_t) + α · L([W_t, W_i]),

in each step with one i, drawn from a list of widths; at the end the student is kept alone. Here the extra units are
those of the feed-forward parts: with a factor f, n units have (f − 1) · n beside them, the first of a list that all
factors share. Heads are not augmented. L is the whole objective; rows and the teacher's outputs are the same for both
losses. Each has a forward and a backward of its own, with dropout drawn anew, as in the authors' code; the gradients
are added, and in several processes exchanged once, with those of the second.

The factor is a function of (seed, step): one for all blocks, processes and micro-batches of a step, so that
accumulation is exact. A step that draws 1 is one of the student alone, as are all from the fraction `until` on.

Unlike the authors' code (mit-han-lab/tinyml): there a width is drawn for each block, and where all are the net's own
its loss counts twice; units are sorted by importance at each epoch, here they stay where they are; and in the second
half of the training the width of the net is no longer augmented, while the width within a block, which is nearest to
feed-forward units, is to the end (`until: 1`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import ensemble_members, feed_forward_layers, layer_stack
from distil_nlp.training.extension import Extension, RunningExtension, TrainingSetup, restore_forward
from distil_nlp.training.further_passes import FurtherPass
from distil_nlp.training.meter import Meter
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

NETAUG = "student.augment"
EXTRA_UNITS = "extra_units"
"""Name of the extra units among the modules that the student carries in training."""
_STREAM = 2110_08890
"""Keeps these draws apart from others of the same seed and step."""


@dataclass(frozen=True)
class NetAug(Extension):
    """Settings of network augmentation.

    Attributes:
        ffn: factors of the number of feed-forward units, at least 1, of which each step draws one.
        until: fraction of the steps from which the student trains alone.
        weight: α, the weight of the wider net's loss.
        layers: the teacher's block that each of the student's was copied from, from 0, whose units the extra ones start
            from; None to draw them all.
    """

    skips_parameters: ClassVar[bool] = True
    widens: ClassVar[bool] = True

    ffn: Sequence[float] = (1.0, 2.0)
    until: float = 0.5
    weight: float = 1.0
    layers: Sequence[int] | None = None

    @property
    def is_on(self) -> bool:
        """Whether any step has a wider net."""
        return max(self.ffn) > 1 and self.until > 0

    def validate(self, setup: TrainingSetup) -> None:
        validate_netaug(setup.args, setup.is_sharded, setup.is_joint)

    def modules(self, setup: TrainingSetup) -> dict[str, nn.Module]:
        return {EXTRA_UNITS: extra_units(setup.student, setup.teacher, self, setup.args.seed)}

    def begin(self, trainer: Any, setup: TrainingSetup) -> WiderStudent:
        return WiderStudent(setup.student, trainer.teacher_student.carried(EXTRA_UNITS), self, setup.args)

    def factor(self, seed: int, step: int, max_steps: int) -> float:
        """Return the factor of a step, from 0; 1 for the student alone."""
        if not self.is_on or step >= self.until * max_steps:
            return 1.0
        return float(np.random.default_rng((seed, step, _STREAM)).choice(self.ffn))

    @property
    def sentence(self) -> str:
        """Return the scheme in a sentence for people."""
        *others, last = (f"{factor:g}" for factor in self.ffn)
        widths = f"{', '.join(others)} or {last}" if others else last
        return (
            f"In the first {100 * self.until:g} % of training the student was part of a wider net too, whose "
            f"feed-forward parts had {widths} times as many units, drawn in each step, and whose loss was added with "
            f"weight {self.weight:g} (NetAug, arXiv:2110.08890); the student has none of the extra units."
        )


class ExtraUnits(nn.Module):
    """Units beside those of a feed-forward part.

    Args:
        first, last: the layers before and behind the part's own units.
        count: number of further units.
    """

    def __init__(self, first: nn.Linear, last: nn.Linear, count: int):
        super().__init__()
        self.first = nn.Linear(first.in_features, count, bias=first.bias is not None)
        self.last = nn.Linear(count, last.out_features, bias=False)

    def units(self, states: Tensor, count: int) -> Tensor:
        """Return the first units before the activation function, (…, count)."""
        bias = None if self.first.bias is None else self.first.bias[:count]
        return F.linear(states, self.first.weight[:count], bias)

    def output(self, units: Tensor) -> Tensor:
        """Return what units, (…, count), add to the part's output."""
        return F.linear(units, self.last.weight[:, : units.shape[-1]])

    @torch.no_grad()
    def start_from(self, numbers: Sequence[int], first: nn.Linear, last: nn.Linear) -> None:
        """Let the first units be those of another part, by their numbers."""
        chosen, count = torch.tensor(numbers, dtype=torch.long, device=first.weight.device), len(numbers)
        self.first.weight[:count] = first.weight[chosen].to(self.first.weight)
        self.last.weight[:, :count] = last.weight[:, chosen].to(self.last.weight)
        if first.bias is not None and self.first.bias is not None:
            self.first.bias[:count] = first.bias[chosen].to(self.first.bias)


def extra_units(student: PreTrainedModel, teacher: Any, netaug: NetAug, seed: int) -> nn.ModuleList:
    """Return the extra units of each of the student's blocks; one that runs several times (ALBERT) has them once.

    They start from those of the teacher's block that the student does not have, in the order of their importance, which
    is the L1 norm of what reads them, as in the authors' code. A student of another width can read none of them; one
    with all units of its teacher lacks none. Those that are missing are drawn as the student's class draws its weights.

    Args:
        student: its blocks have plain feed-forward parts.
        teacher: a model, an ensemble, of which the first counts, or None.
        netaug: the settings.
        seed: of what is drawn.

    Raises:
        UserError: if there are no such parts, or `layers` are not blocks of both models.
    """
    stack, found, taken = layer_stack(student), [], 0
    theirs = _blocks_of(teacher, netaug.layers, len(stack))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, block in {id(block): (number, block) for number, block in enumerate(stack)}.values():
            first, last = feed_forward_layers(student, block, NETAUG)
            extra = ExtraUnits(first, last, _count(first, max(netaug.ffn)))
            extra.apply(student._init_weights)
            extra.to(first.weight.device, first.weight.dtype)
            taken += _start(extra, (first, last), theirs and feed_forward_layers(theirs[0], theirs[1][number], NETAUG))
            found.append(extra)
    total = sum(extra.first.out_features for extra in found)
    logger.info(f"augment: {total} extra units in training, {taken} of the teacher’s and {total - taken} drawn")
    return nn.ModuleList(found)


def _blocks_of(
    teacher: Any, layers: Sequence[int] | None, depth: int
) -> tuple[PreTrainedModel, list[nn.Module]] | None:
    """Return the teacher, and its block for each of the student's; None where no unit comes from it."""
    if layers is None or not isinstance(teacher, nn.Module):
        return None
    model = ensemble_members(teacher)[0]
    stack = layer_stack(model)
    if len(layers) != depth or not all(0 <= layer < len(stack) for layer in layers):
        raise UserError(
            NETAUG,
            f"a block of the teacher's {len(stack)} for each of the student's {depth}",
            str(list(layers)),
            why="extra units start from those of a block's own origin",
            fix="leave layers out, or list the blocks that the student was copied from",
        )
    return model, [stack[layer] for layer in layers]


def _count(first: nn.Linear, factor: float) -> int:
    """Return the number of extra units beside a layer's own."""
    return round(first.out_features * (factor - 1))


def _start(extra: ExtraUnits, own: tuple[nn.Linear, nn.Linear], theirs: tuple[nn.Linear, nn.Linear] | None) -> int:
    """Let extra units be those that the teacher has and the student has not; return how many."""
    if theirs is None or _widths(own) != _widths(theirs):
        return 0
    numbers = _lacking(own[0], *theirs)[: extra.first.out_features]
    extra.start_from(numbers, *theirs)
    return len(numbers)


def _widths(layers: tuple[nn.Linear, nn.Linear]) -> tuple[int, int]:
    return layers[0].in_features, layers[1].out_features


def _lacking(own: nn.Linear, first: nn.Linear, last: nn.Linear) -> list[int]:
    """Return the numbers of a part's units that another does not have, the most important first."""
    known = {_bytes(row) for row in own.weight}
    importance = last.weight.detach().float().abs().sum(0).tolist()
    lacking = [number for number, row in enumerate(first.weight) if _bytes(row) not in known]
    return sorted(lacking, key=lambda number: -importance[number])


def _bytes(row: Tensor) -> bytes:
    return row.detach().float().cpu().numpy().tobytes()


class WiderStudent(RunningExtension):
    """The patch of a student's feed-forward parts, to which extra units belong within `widened`, in train mode alone.

    Args:
        student: its last layers' forwards are replaced.
        units: of `extra_units`, which the student carries as `EXTRA_UNITS`.
        netaug: the settings.
        args: for the seed of the draws, and the device.

    Attributes:
        netaug: the settings.
        factor: of the net that runs now; 1 for the student alone.
    """

    takes_further_passes = True

    def __init__(self, student: PreTrainedModel, units: nn.ModuleList, netaug: NetAug, args: TrainingArguments):
        self.netaug, self._seed = netaug, args.seed
        self.factor = 1.0
        self._meter = Meter(1, args.device)
        blocks = list({id(block): block for block in layer_stack(student)}.values())
        self._removers = [
            remove
            for block, extra in zip(blocks, units, strict=True)
            for remove in self._patch(extra, *feed_forward_layers(student, block, NETAUG))
        ]

    def _patch(self, extra: Any, first: nn.Linear, last: nn.Linear) -> list[Any]:
        """Let a part have extra units; return what undoes it. A recorder's hooks, which are older, see its own."""
        before = last.__dict__.get("forward")  # of another trainer

        def count(layer: nn.Module) -> int:
            return _count(first, self.factor) if layer.training else 0

        def add_units(layer: nn.Module, args: tuple, own: Tensor) -> Tensor | None:
            return torch.cat([own, extra.units(args[0], further)], -1) if (further := count(layer)) else None

        def forward(layer: nn.Linear, units: Tensor) -> Tensor:
            own, others = units[..., : layer.in_features], units[..., layer.in_features :]
            output = before(own) if before is not None else type(layer).forward(layer, own)
            return output + extra.output(others) if count(layer) else output

        patched = MethodType(forward, last)
        last.forward = patched  # type: ignore[method-assign]
        return [first.register_forward_hook(add_units).remove, partial(restore_forward, last, patched, before)]

    def further_pass(self, step: int, max_steps: int) -> FurtherPass | None:
        """Return the wider net's pass in a step; None in one of the student alone."""
        factor = self.netaug.factor(self._seed, step, max_steps)
        if factor == 1:
            return None
        return FurtherPass(sort_of(factor), self.netaug.weight, partial(self.widened, factor), self.add)

    @contextmanager
    def widened(self, factor: float) -> Iterator[None]:
        """Within this context, the student has the extra units of a factor; its backward belongs there too."""
        self.factor = factor
        try:
            yield
        finally:
            self.factor = 1.0

    def start(self, step: int) -> None:
        """Forget what was summed, where training starts at a step."""
        self._meter.start(step)

    def begin_step(self, step: int, max_steps: int) -> None:
        """Count a step, if it has a wider net."""
        is_wider = self.netaug.factor(self._seed, step, max_steps) > 1
        self._meter.begin_step(self._meter.sums.new_full((1,), float(is_wider)))

    def add(self, loss: Tensor) -> None:
        """Add the wider net's loss of a micro-batch, before its weight."""
        self._meter.add(loss.detach()[None].to(self._meter.sums.dtype))

    def logs(self, accelerator: Any, step: int, progress: float) -> dict[str, float]:
        """Return the mean of the wider net's loss over its steps since the last read; {} if there were none."""
        (mean,) = self._meter.read(accelerator, step)
        return {} if np.isnan(mean) else {"wider_loss": mean}

    def remove(self) -> None:
        """Give all parts their own units back."""
        for remove in self._removers:
            remove()
        self._removers = []


def sort_of(factor: float) -> str:
    """Return the name of the passes of a wider net."""
    return f"{factor:g} × the units"


def validate_netaug(args: TrainingArguments, is_sharded: bool, is_joint: bool) -> None:
    """Raise an error for what does not go together with network augmentation.

    Args:
        args: of training.
        is_sharded: whether FSDP or DeepSpeed divide the student.
        is_joint: whether further modules train together with it.

    Raises:
        UserError: for sharding, torch_compile, joint modules, and DDP that does not look for unused parameters.
    """
    if is_sharded:
        raise UserError(
            NETAUG,
            "one process or DDP",
            "FSDP or DeepSpeed",
            why="they expect one backward, with the same parameters in each step",
            fix=f"use DDP, or leave {NETAUG} out",
        )
    if args.torch_compile:
        raise UserError(
            "training.torch_compile",
            f"false with {NETAUG}",
            "true",
            why="blocks are compiled for one number of feed-forward units",
            fix="leave one of the two out",
        )
    if is_joint:
        raise UserError(
            NETAUG,
            "a student that trains alone, without student.exits, peers or branches",
            "one of them",
            why="the modules that train together with it would not be wider, and would count twice",
            fix="leave one of the two out",
        )
    if args.ddp_find_unused_parameters is False:
        raise UserError(
            "training.ddp_find_unused_parameters",
            f"true, or none, with {NETAUG}",
            "false",
            why="in a step of the student alone the extra units have no gradient to exchange",
            fix="leave it out",
        )
