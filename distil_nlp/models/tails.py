"""The tail of a model: its last blocks and all that comes behind them (norm, pooler, head), as a module of its own.

A tail goes on from the states that leave a block, so that a model can have several: at other depths, or side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import layer_stack, stack_prefixes
from distil_nlp.models.config_fields import set_for_distilling
from distil_nlp.models.parameter_names import split_name
from distil_nlp.models.student_shape import set_depth
from distil_nlp.models.trial import run_plainly, trial_batch, undisturbed


class Tail(nn.Module):
    """The last blocks of a model and all behind them, with weights of their own, copied from the model.

    It is the model's own code: a copy whose embeddings are replaced by zeros, and whose earlier blocks by one that
    gives out the states that were handed in. A few tokens show that the logits are the model's.

    Args:
        model: with a head; stays as it is.
        blocks: number of the last blocks that are part of the tail.

    Attributes:
        model: the copy; what of it does not change the logits is frozen.
        blocks: see above.
        is_batch_first: whether states are (batch, seq, width).

    Raises:
        UserError: if the model cannot be cut there: blocks that share weights or run in parts, blocks that are not the
            only way from their input to the output, or weights that the blocks before the cut use too.
    """

    def __init__(self, model: PreTrainedModel, blocks: int = 0):
        super().__init__()
        self.blocks = blocks
        try:
            self._cut(model, blocks)
        except UserError:
            raise
        except Exception as error:  # whatever a family reads of the parts that are missing
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise _uncut(type(model).__name__, reason) from error

    def _cut(self, model: PreTrainedModel, blocks: int) -> None:
        prefix = _only_prefix(model)
        start = model.config.num_hidden_layers - blocks
        states, logits, form, before = _trial(model, start)
        self.is_batch_first = len(states) == len(logits)
        self.model = copy.deepcopy(model)
        set_for_distilling(self.model.config)
        self._stack = prefix.rstrip(".")
        stack: Any = self.model.get_submodule(self._stack)
        self.model.set_submodule(self._stack, nn.ModuleList([_Entrance(stack[start - 1], form), *stack[start:]]))
        set_depth(self.model.config, blocks + 1, list(range(start - 1, start + blocks)))
        _drop_embeddings(self.model)
        self._check(states, logits, before, type(model).__name__)

    def forward(self, states: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Return the logits, (batch, classes).

        Args:
            states: whole, as they leave the block before the tail.
            inputs: of the model, by name; words and segments are not read.
        """
        entrance: Any = self.model.get_submodule(f"{self._stack}.0")
        entrance.states = states
        try:
            return self.model(**inputs).logits
        finally:
            entrance.states = None

    def _check(self, states: Tensor, logits: Tensor, before: set[str], name: str) -> None:
        """Compare the logits with the model's, and freeze what they do not depend on."""
        with undisturbed(self.model), torch.enable_grad():
            own = self(states, trial_batch(self.model))
            names = {key: weight for key, weight in self.model.named_parameters() if weight.requires_grad}
            gradients = torch.autograd.grad(own.square().sum(), [*names.values()], allow_unused=True)
        if own.shape != logits.shape or not torch.allclose(own, logits, rtol=1e-4, atol=1e-5):
            raise _uncut(name, "other logits from the states at its end than its own")
        for weight, gradient in zip(names.values(), gradients, strict=True):
            weight.requires_grad_(gradient is not None)
        shared = sorted(self.trained.keys() & before)
        if shared:
            raise _uncut(name, f"weights that blocks before and behind the cut share ({', '.join(shared[:3])})")

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that the logits depend on, by their names in the copy."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def join_tail(model: PreTrainedModel, depth: int, tail: Tail) -> PreTrainedModel:
    """Return a plain model of the first `depth` blocks of a model, the blocks of a tail, and what is behind them.

    Args:
        model: of the class of the tail's; stays as it is.
        depth: number of the model's own blocks.
        tail: its weights are copied.
    """
    config = copy.deepcopy(model.config)
    last = model.config.num_hidden_layers
    set_depth(config, depth + tail.blocks, [*range(depth), *range(last - tail.blocks, last)])
    joined = type(model)._from_config(config, dtype=next(model.parameters()).dtype)
    prefix, own, new = _only_prefix(model), model.state_dict(), tail.trained
    state = {}
    for name in joined.state_dict():
        _, number, rest = split_name(name, [prefix])
        in_tail = name if number is None else f"{prefix}{number - depth + 1}{rest}"
        is_tails = (number is None or number >= depth) and in_tail in new
        state[name] = (new[in_tail] if is_tails else own[name]).detach()
    joined.load_state_dict(state)
    joined.tie_weights()
    return joined.train(model.training)


class _Entrance(nn.Module):
    """Stands for the blocks before a tail: gives out the states that it was handed, whatever reaches it.

    Args:
        block: the block before the tail, whose plain attributes the encoder may read.
        form: None if blocks return states alone; else the length of the tuple that they return.
    """

    def __init__(self, block: nn.Module, form: int | None):
        super().__init__()
        plain = {name: value for name, value in vars(block).items() if not name.startswith("_") and name != "training"}
        self.__dict__.update(plain)
        self.form = form
        self.states: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        assert self.states is not None  # `Tail.forward` has set them
        return self.states if self.form is None else (self.states, *[None] * (self.form - 1))


class _NoEmbeddings(nn.Module):
    """Gives zeros in place of embeddings, which only their shape is read of."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        assert input_ids is not None  # as the collators of this tool give them
        zero: Any = self.zero
        return zero.new_zeros(*input_ids.shape, self.width)


def _only_prefix(model: PreTrainedModel) -> str:
    prefixes = stack_prefixes(model)
    if len(prefixes) > 1:
        raise _uncut(type(model).__name__, "blocks whose parts are in several lists")
    return prefixes[0]


def _trial(model: PreTrainedModel, start: int) -> tuple[Tensor, Tensor, int | None, set[str]]:
    """Run a few tokens.

    Returns:
        The states that leave block `start` − 1, the logits, the form of a block's output (see `_Entrance`), and the
        names of the weights that these states depend on.
    """
    found: list[Any] = []
    handle = layer_stack(model)[start - 1].register_forward_hook(lambda module, args, output: found.append(output))
    try:
        with undisturbed(model), torch.enable_grad():
            logits = run_plainly(model, trial_batch(model)).logits
            if len(found) != 1:
                raise _uncut(type(model).__name__, "a block that does not run once")
            states = found[0] if isinstance(found[0], Tensor) else found[0][0]
            names = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            gradients = torch.autograd.grad(states.square().sum(), [*names.values()], allow_unused=True)
    finally:
        handle.remove()
    form = None if isinstance(found[0], Tensor) else len(found[0])
    before = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    blocks = {name for name in before if split_name(name, stack_prefixes(model))[1] is not None}
    return states.detach(), logits.detach(), form, before - blocks


def _drop_embeddings(model: PreTrainedModel) -> None:
    """Replace the part of the encoder that embeds words."""
    base: Any = model.base_model
    table = base.get_input_embeddings()
    name = next(name for name, module in base.named_modules() if module is table).split(".")[0]
    width = getattr(model.config, "embedding_size", None) or table.weight.shape[1]
    setattr(base, name, _NoEmbeddings(width).to(table.weight.device, table.weight.dtype))


def _uncut(name: str, got: str) -> UserError:
    return UserError(
        None,
        f"{name} to be a row of blocks, each with weights of its own, with a head behind them",
        got,
        why="it cannot be cut between two blocks",
        fix="take an encoder such as BERT, RoBERTa or ModernBERT, or leave the scheme out",
    )
