"""A model that keeps some of another's feed-forward units, attention heads and features of its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil_nlp.models.architecture import feed_forward_width, stack_prefixes
from distil_nlp.models.parameter_names import split_name
from distil_nlp.models.pruning.axes import Axes, ParameterAxis, cannot_cut, resized
from distil_nlp.models.sentence_encoder import SentenceEncoder
from distil_nlp.models.trial import keeping_random_state, logit_difference
from distil_nlp.models.widening import head_width

_ROUNDING = 1e-4
"""Largest difference, relative to logits above 1, that another order of the same sums makes."""


@dataclass(frozen=True)
class Kept:
    """What a smaller model keeps, by number.

    Attributes:
        width: features of the states.
        heads: heads of each block.
        units: feed-forward units of each block.
    """

    width: Tensor
    heads: Sequence[Tensor]
    units: Sequence[Tensor]


def everything(model: PreTrainedModel) -> Kept:
    """Return all that a model has."""
    config, depth = model.config, model.config.num_hidden_layers
    heads, units = torch.arange(config.num_attention_heads), torch.arange(feed_forward_width(config) or 0)
    return Kept(torch.arange(config.hidden_size), [heads] * depth, [units] * depth)


def cut_model(model: PreTrainedModel, axes: Axes, kept: Kept) -> PreTrainedModel:
    """Return a model of the same class and depth with the weights of what is kept.

    Args:
        model: stays as it is.
        axes: of its parameters, see `parameter_axes`.
        kept: as many heads as the width has room for, and as many of heads and units in each block.
    """
    config = resized(model.config, len(kept.width), len(kept.heads[0]), len(kept.units[0]))
    with keeping_random_state(model.device):
        smaller = type(model)._from_config(config, dtype=model.dtype)
    head, prefixes, parameters = head_width(model.config), stack_prefixes(model), dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in smaller.named_parameters():
            if name not in parameters:
                continue  # see `_spread`
            block = split_name(name, prefixes)[1] or 0
            value: Tensor = parameters[name]
            for dim, axis in enumerate(axes[name]):
                if axis is not None:
                    places = _places(axis, kept, block, head, value.shape[dim])
                    value = value.index_select(dim, places.to(value.device))
            if value.shape != parameter.shape:
                raise cannot_cut(model, f"{name} of shape {tuple(parameters[name].shape)}")
            parameter.copy_(value)
    _spread(smaller, parameters, kept.width)
    own = dict(model.named_buffers())
    for name, buffer in smaller.named_buffers():
        if name in own and own[name].shape == buffer.shape:
            buffer.copy_(own[name])
    smaller.tie_weights()
    return smaller.to(model.device).train(model.training)


def _spread(smaller: PreTrainedModel, parameters: Mapping[str, Tensor], width: Tensor) -> None:
    """Let the layer that brings a narrower encoder's vectors to their length put each feature where it was."""
    if not isinstance(smaller, SentenceEncoder) or smaller.dense is None or "dense.weight" in parameters:
        return
    with torch.no_grad():
        smaller.dense.weight.copy_(torch.eye(smaller.dense.out_features)[:, width])
        if smaller.dense.bias is not None:
            smaller.dense.bias.zero_()


def _places(axis: ParameterAxis, kept: Kept, block: int, head: int, size: int) -> Tensor:
    """Return the places of an axis of a given size that are kept."""
    if axis.role == "heads":
        places = (kept.heads[block][:, None] * head + torch.arange(head)).flatten()
    else:
        places = {"width": kept.width, "biases": kept.heads[block], "units": kept.units[block]}[axis.role]
    part = size // axis.parts
    return torch.cat([places + number * part for number in range(axis.parts)])


def check_axes(model: PreTrainedModel, axes: Axes) -> None:
    """Put all features, heads and units into another order, and compare outputs.

    Raises:
        UserError: if they differ: an axis is of something else than it seems.
    """
    whole, draws = everything(model), torch.Generator().manual_seed(0)

    def shuffled(numbers: Tensor) -> Tensor:
        return numbers[torch.randperm(len(numbers), generator=draws)]

    width, heads = shuffled(whole.width), [shuffled(one) for one in whole.heads]
    if shares_heads(model, axes):
        heads = [heads[0]] * len(heads)
    other = cut_model(model, axes, Kept(width, heads, [shuffled(one) for one in whole.units]))
    is_vector = isinstance(model, SentenceEncoder) and model.dense is None  # a vector of the states' features
    difference, largest = logit_difference(model, other, width if is_vector else None)
    if not difference <= _ROUNDING * max(largest, 1.0):
        raise cannot_cut(model, f"outputs that change by {difference:.2g} where its units only change places")


def shares_heads(model: PreTrainedModel, axes: Axes) -> bool:
    """Return whether all blocks have some number of each head in common, such as MPNet's biases of positions."""
    prefixes = stack_prefixes(model)
    return any(
        axis is not None and axis.role in ("biases", "heads") and split_name(name, prefixes)[1] is None
        for name, roles in axes.items()
        for axis in roles
    )
