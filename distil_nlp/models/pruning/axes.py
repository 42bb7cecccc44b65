"""What each axis of a model's parameters counts: features of the states, attention heads, feed-forward units.

Found by comparing shapes with those of the same model with one head, or a few units, more; then tried: a model whose
features, heads and units are put into another order by these axes must give the same outputs.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import feed_forward_width, stack_prefixes
from distil_nlp.models.parameter_names import split_name
from distil_nlp.models.student_shape import IMPOSSIBLE, followers
from distil_nlp.models.widening import head_width
from distil_nlp.utils.logging import quiet_transformers

AxisRole = Literal["width", "heads", "biases", "units"]


@dataclass(frozen=True)
class ParameterAxis:
    """An axis of a parameter.

    Attributes:
        role: what it counts: features of the states (`width`), those of the heads one after another (`heads`), one
            number for each head (`biases`), or feed-forward units (`units`).
        parts: how often these come, one after another: 3 where queries, keys and values are one matrix, 2 where units
            and their gates are.
    """

    role: AxisRole
    parts: int = 1


Axes = dict[str, tuple[ParameterAxis | None, ...]]
"""A parameter's name → its axes; None for an axis that counts something else, such as words."""

_INTO_HEADS = re.compile(r"\.(query|key|value|[qkv]|[qkv]_lin|(q|k|v|query|key|value|pos|pos_q)_proj|Wqkv|in_proj)\.")
"""The projections of attention whose outputs are those of the heads; any other layer within a block gives states."""
_MORE_UNITS = 8


def parameter_axes(model: PreTrainedModel) -> Axes:
    """Return what the axes of a model's parameters count.

    Raises:
        UserError: if the shapes of the family do not follow from its width, heads and units.
    """
    config: PretrainedConfig = model.config
    found: Axes = {}
    head, units = head_width(config), feed_forward_width(config) or 0
    width, heads = config.hidden_size, config.num_attention_heads
    try:
        wider = _shapes(model, width + head, heads + 1, units)
        taller = _shapes(model, width, heads, units + _MORE_UNITS) if units else {}
    except (UserError, AttributeError, *IMPOSSIBLE) as error:
        raise cannot_cut(model, f"a model of one head more that cannot be made ({error})") from error
    prefixes = stack_prefixes(model)
    for name, parameter in model.named_parameters():
        shape, wide, tall = tuple(parameter.shape), wider.get(name), taller.get(name, tuple(parameter.shape))
        if wide is None or len(wide) != len(shape) or len(shape) > 2:
            if wide != shape or tall != shape:
                raise cannot_cut(model, f"{name} of shape {shape}")
            wide = shape
        into_heads = split_name(name, prefixes)[1] is not None and bool(_INTO_HEADS.search(f".{name}"))
        roles = [_role(old, new, tallest, head) for old, new, tallest in zip(shape, wide, tall, strict=True)]
        found[name] = tuple(_of_heads(roles, into_heads, split_name(name, prefixes)[1] is not None))
    return found


def _shapes(model: PreTrainedModel, width: int, heads: int, units: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the same model of other sizes."""
    config = resized(model.config, width, heads, units)
    with quiet_transformers(), no_init_weights(), torch.device("meta"):
        return {name: tuple(value.shape) for name, value in type(model)._from_config(config).named_parameters()}


def resized(config: PretrainedConfig, width: int, heads: int, units: int) -> PretrainedConfig:
    """Return a configuration with another width of the states, number of heads, and of feed-forward units."""
    other, changes = copy.deepcopy(config), {"hidden_size": width, "num_attention_heads": heads}
    if changes != {name: getattr(config, name) for name in changes}:
        for name, value in (followers(config, changes) | changes).items():
            setattr(other, name, value)
    if units != (feed_forward_width(config) or 0):
        setattr(other, "intermediate_size" if getattr(config, "intermediate_size", None) else "hidden_dim", units)
    return other


def _role(old: int, wider: int, taller: int, head: int) -> ParameterAxis | None:
    """Return what an axis counts by how much longer it is with one head more, and with more units."""
    if taller != old:
        return ParameterAxis("units", (taller - old) // _MORE_UNITS)
    if wider == old:
        return None
    return ParameterAxis("biases") if wider - old < head else ParameterAxis("width", (wider - old) // head)


def _of_heads(roles: list[ParameterAxis | None], into_heads: bool, in_block: bool) -> list[ParameterAxis | None]:
    """Return the axes of a parameter with those of heads told from those of states."""
    of_width = [axis is not None and axis.role == "width" for axis in roles]
    if into_heads and of_width and of_width[0]:
        assert roles[0] is not None
        return [ParameterAxis("heads", roles[0].parts), *roles[1:]]
    if in_block and of_width == [True, True]:  # the projection behind the heads: the others have units on one side
        return [roles[0], ParameterAxis("heads")]
    return roles


def sites(model: PreTrainedModel, axes: Axes, role: AxisRole) -> list[dict[str, nn.Linear]]:
    """Return, for each block, the layers that read its heads or units: name within the block → layer.

    Raises:
        UserError: if a block has none.
    """
    prefixes, modules = stack_prefixes(model), dict(model.named_modules())
    found: list[dict[str, nn.Linear]] = [{} for _ in range(model.config.num_hidden_layers)]
    for name, roles in axes.items():
        _, number, rest = split_name(name, prefixes)
        module = modules.get(name.removesuffix(".weight"))
        reads = len(roles) == 2 and roles[1] is not None and roles[1].role == role
        if number is not None and reads and isinstance(module, nn.Linear):
            found[number][rest.removesuffix(".weight")] = module
    if not all(found):
        raise cannot_cut(model, f"a block without a layer that reads its {role}")
    return found


def cannot_cut(model: PreTrainedModel, got: str) -> UserError:
    """Return the error of a family whose heads and units cannot be told from its parameters."""
    return UserError(
        "student.pruning",
        "an encoder whose heads and feed-forward units can be cut, such as BERT, RoBERTa, DistilBERT or MPNet",
        f"{type(model).__name__}, with {got}",
        why="parts of it would be cut that belong together",
        fix="leave student.pruning out; student.num_layers and student.config work",
    )
