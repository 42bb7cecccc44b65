"""How much the outputs of a model hang on each of its blocks, heads, feed-forward units and features of its states.

Each has a mask ξ = 1 by which what it gives is multiplied. No label is needed: the loss is −log p(y | x) of an output y
that is drawn from the model itself. The mean of its squared gradient is the Fisher information, and half of that is the
second-order term of the KL from the model to itself with a mask moved; the first-order term is zero.

- `fisher`: Σ over rows of (∂L/∂ξ)² (Kwon et al. 2022, arXiv:2204.09656);
- `taylor`: Σ over rows of |∂L/∂ξ| (Michel et al. 2019, arXiv:1905.10650);
- `obd`: Σ over rows, and over the weights w of a part, of ½ (w · ∂L/∂w)² (Optimal Brain Damage, Le Cun et al. 1989,
  with the Fisher information as the Hessian);
- `activation`: Σ over tokens of the absolute value of what a part gives; of a block, of 1 − the cosine between the
  states that it reads and gives (a value of our own);
- `random`: drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import layer_stack, stack_prefixes
from distil_nlp.models.parameter_names import split_name
from distil_nlp.models.pruning.axes import Axes, cannot_cut, sites
from distil_nlp.models.widening import head_width

Criterion = Literal["fisher", "taylor", "obd", "activation", "random"]
Batch = Mapping[str, Any]


@dataclass
class Importance:
    """Importance of a model's parts, in units that compare within a field alone.

    Attributes:
        layers: (blocks,).
        heads: (blocks, heads).
        units: (blocks, feed-forward units).
        width: (features,).
    """

    layers: Tensor
    heads: Tensor
    units: Tensor
    width: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def measure_importance(
    model: PreTrainedModel,
    axes: Axes,
    batches: Iterable[Batch],
    loss: Callable[[Batch], Tensor],
    by: Criterion,
    *,
    seed: int = 0,
) -> Importance:
    """Return the importance of the parts of a model. It keeps its mode and its gradients.

    Args:
        model: whole.
        axes: of its parameters.
        batches: of rows, on the model's device.
        loss: runs the model on a batch, and returns the sum over its rows of the loss of a drawn output.
        by: a criterion.
        seed: of `random`, and of the outputs that are drawn.

    Raises:
        UserError: if something measured is not finite, or the model's blocks cannot be told apart.
    """
    meter = _METERS[by](model, axes)
    if by == "random":
        torch.manual_seed(seed)
        return meter.result()
    was_training, needed = model.training, [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    table: Any = model.get_input_embeddings()
    table.requires_grad_(True)  # so that the gradient reaches all masks
    meter.attach()
    try:
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for batch in batches:
                meter.mask = batch["attention_mask"].to(model.device)
                with torch.set_grad_enabled(meter.reads_gradients):
                    value = loss(batch)
                    if meter.reads_gradients:
                        torch.autograd.grad(value, table.weight)
                meter.end_batch()
    finally:
        meter.remove()
        for parameter, need in zip(model.parameters(), needed, strict=True):
            parameter.requires_grad_(need)
        model.train(was_training)
    return _finite(meter.result(), by)


def _finite(importance: Importance, by: str) -> Importance:
    for name, values in importance.tensors().items():
        if not bool(values.isfinite().all()):
            raise UserError(
                "student.pruning.importance",
                f"finite importance of the teacher's {name} by {by}",
                "NaN or infinity",
                why="no part can be chosen by it",
                fix="take activation or random, or a teacher in float32",
            )
    return importance


class _Meter(ABC):
    """Sums up what hooks see.

    Attributes:
        reads_gradients: whether a backward is needed.
        mask: (rows, tokens), of the batch that runs.
    """

    reads_gradients = True

    def __init__(self, model: PreTrainedModel, axes: Axes):
        config = model.config
        self.model, self.axes, self.head = model, axes, head_width(config)
        self.blocks = layer_stack(model)
        self.heads, self.units = (
            [next(iter(named.values())) for named in sites(model, axes, role)] for role in ("heads", "units")
        )
        shapes = {
            "layers": (len(self.blocks),),
            "heads": (len(self.blocks), config.num_attention_heads),
            "units": (len(self.blocks), self.units[0].in_features),
            "width": (config.hidden_size,),
        }
        self.sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        self.handles: list[Any] = []
        self.mask = torch.empty(0)

    @abstractmethod
    def attach(self) -> None:
        """Put hooks on the model."""

    def end_batch(self) -> None:  # noqa: B027  # most add up as they see
        """Take in what was seen of a batch."""

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def result(self) -> Importance:
        return Importance(**self.sums)

    def before(self, module: nn.Module, hook: Callable[[Tensor], None]) -> None:
        """Call a hook with what a module reads."""

        def read(_: nn.Module, args: tuple, options: dict) -> None:
            hook(args[0] if args else options["hidden_states"])

        self.handles.append(module.register_forward_pre_hook(read, with_kwargs=True))

    def around(self, block: nn.Module, hook: Callable[[Tensor, Tensor], None]) -> None:
        """Call a hook with the states that a block reads and gives."""
        seen: list[Tensor] = []
        self.before(block, seen.append)

        def give(_: nn.Module, __: tuple, output: Any) -> None:
            states, given = seen.pop(), output if isinstance(output, Tensor) else output[0]
            if states.shape != given.shape or states.shape[:2] != self.mask.shape:
                raise cannot_cut(self.model, f"states of shape {tuple(given.shape)} within a block")
            hook(states, given)

        self.handles.append(block.register_forward_hook(give))

    def of_heads(self, values: Tensor) -> Tensor:
        """Return sums over the features of each head: (…, heads · width) → (…, heads)."""
        return values.unflatten(-1, (-1, self.head)).sum(-1)


class _MaskGradients(_Meter):
    """The gradients of a loss with respect to masks, row by row: of what x gives, the sum of x · ∂L/∂x."""

    def __init__(self, model: PreTrainedModel, axes: Axes):
        super().__init__(model, axes)
        self.rows: dict[tuple[str, int], Tensor] = {}

    def attach(self) -> None:
        for number, block in enumerate(self.blocks):
            self.before(self.heads[number], partial(self._watch, "heads", number, self.of_heads))
            self.before(self.units[number], partial(self._watch, "units", number, lambda gradient: gradient))
            self.around(block, partial(self._watch_block, number))

    def _watch(self, name: str, number: int, fold: Callable[[Tensor], Tensor], values: Tensor) -> None:
        seen = values.detach()
        values.register_hook(lambda g: self._add(name, number, fold((seen.float() * g.float()).sum(1))))

    def _watch_block(self, number: int, old: Tensor, new: Tensor) -> None:
        before, change = old.detach(), (new - old).detach()
        new.register_hook(lambda g: self._add("layers", number, (change.float() * g.float()).sum((1, 2))))
        new.register_hook(lambda g: self._add("width", 0, ((before + change).float() * g.float()).sum(1)))

    def _add(self, name: str, number: int, gradient: Tensor) -> None:
        key = (name, number)
        self.rows[key] = self.rows[key] + gradient if key in self.rows else gradient

    def end_batch(self) -> None:
        for (name, number), gradient in self.rows.items():
            total = self.power(gradient.double()).sum(0).cpu()
            place = self.sums[name] if name == "width" else self.sums[name][number]
            place += total
        self.rows.clear()

    @abstractmethod
    def power(self, gradient: Tensor) -> Tensor:
        """Return what is summed over rows."""


class _Fisher(_MaskGradients):
    def power(self, gradient: Tensor) -> Tensor:
        return gradient.square()


class _Taylor(_MaskGradients):
    def power(self, gradient: Tensor) -> Tensor:
        return gradient.abs()


class _Activation(_Meter):
    reads_gradients = False

    def attach(self) -> None:
        for number, block in enumerate(self.blocks):
            self.before(self.heads[number], partial(self._add_heads, number))
            self.before(self.units[number], partial(self._add, "units", number))
            self.around(block, partial(self._add_block, number))

    def _add_heads(self, number: int, values: Tensor) -> None:
        self._add("heads", number, self.of_heads(values.float().abs()))

    def _add(self, name: str, number: int, values: Tensor) -> None:
        total = (values.abs().double() * self.mask[..., None]).sum((0, 1)).cpu()
        place = self.sums[name] if name == "width" else self.sums[name][number]
        place += total

    def _add_block(self, number: int, old: Tensor, new: Tensor) -> None:
        away = 1 - F.cosine_similarity(old.float(), new.float(), dim=-1)
        self.sums["layers"][number] += (away.double() * self.mask).sum().cpu()
        self._add("width", 0, new)


class _OptimalBrainDamage(_Meter):
    """Sums ½ (w · ∂L/∂w)² over rows, and over the weights of a part: of all linear layers within the blocks."""

    def attach(self) -> None:
        prefixes = stack_prefixes(self.model)
        for name, module in self.model.named_modules():
            number = split_name(name, prefixes)[1] if f"{name}.weight" in self.axes else None
            if isinstance(module, nn.Linear) and number is not None:
                self.handles.append(module.register_forward_hook(self._watcher(f"{name}.weight", number)))

    def _watcher(self, name: str, number: int) -> Callable:
        def watch(module: nn.Module, args: tuple, output: Tensor) -> None:
            read, weight = args[0].detach(), self.model.get_parameter(name).detach()
            output.register_hook(lambda g: self._add(name, number, weight, read, g))

        return watch

    def _add(self, name: str, number: int, weight: Tensor, read: Tensor, gradient: Tensor) -> None:
        by_row = torch.einsum("bto,bti->boi", gradient.float(), read.float())
        damage = 0.5 * by_row.mul_(weight).square_().sum(0).double().cpu()
        self.sums["layers"][number] += damage.sum()
        for dim, axis in enumerate(self.axes[name]):
            if axis is None:
                continue
            along = damage.sum(1 - dim).unflatten(0, (axis.parts, -1)).sum(0)
            if axis.role == "width":
                self.sums["width"] += along
            else:
                place = self.sums[axis.role][number]
                place += self.of_heads(along) if axis.role == "heads" else along


class _Random(_Meter):
    def attach(self) -> None:
        """Need nothing."""

    def result(self) -> Importance:
        return Importance(**{name: torch.rand(value.shape) for name, value in self.sums.items()})


_METERS: dict[str, Any] = {
    "fisher": _Fisher,
    "taylor": _Taylor,
    "obd": _OptimalBrainDamage,
    "activation": _Activation,
    "random": _Random,
}
