"""The position of the transformer blocks in a model, and of the feed-forward units in a block."""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError


def layer_stack(model: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer blocks in order of execution; ALBERT's one shared block appears once per layer.

    Raises:
        UserError: if no stack of `config.num_hidden_layers` blocks can be found.
    """
    name = _stack_name(model)
    if name is not None:
        return list(model.get_submodule(name))
    for path, module in model.named_modules():
        if path.endswith("albert_layer_groups.0.albert_layers") and len(module) == 1:
            return [module[0]] * model.config.num_hidden_layers
    raise UserError(
        None,
        f"a stack of {model.config.num_hidden_layers} layers in {type(model).__name__}",
        "none of that length",
        why="its layers cannot be copied or compared",
        fix="use an encoder such as BERT, RoBERTa or ELECTRA",
    )


_UNITS = ("intermediate.dense", "ffn.lin1", "ffn")
"""Names of the first layer of a block's feed-forward part: in BERT and its relatives, DistilBERT, ALBERT."""


def feed_forward_units(model: PreTrainedModel, block: nn.Module) -> nn.Linear:
    """Return the layer of a block whose outputs are its feed-forward units before the activation function.

    Of MobileBERT's four feed-forward parts it is that of the last.

    Raises:
        UserError: if there is none, as where units are gated (ModernBERT) or the sequence goes through in pieces.
    """
    config = model.config
    width = feed_forward_width(config)
    modules = dict(block.named_modules())
    for name in _UNITS:
        layer = modules.get(name)
        if isinstance(layer, nn.Linear) and layer.out_features == width and not _is_chunked(config):
            return layer
    raise UserError(
        None,
        f"a feed-forward layer of {width} units in each block of {type(model).__name__}",
        "one in pieces, by chunk_size_feed_forward" if _is_chunked(config) else "none, or gated ones",
        why="the activation terms cannot see whether a unit is active",
        fix="set their weight to 0",
    )


def feed_forward_width(config: PretrainedConfig) -> int | None:
    """Return the number of feed-forward units of a block; None if the configuration does not give it."""
    return getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None)


def _is_chunked(config: PretrainedConfig) -> bool:
    return bool(getattr(config, "chunk_size_feed_forward", 0))


def ensemble_members(model: nn.Module) -> list[nn.Module]:
    """Return the models of an ensemble, or the model itself."""
    return list(getattr(model, "members", [model]))


def all_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer blocks of all members."""
    return [layer for member in ensemble_members(model) for layer in layer_stack(member)]


def stack_prefix(model: PreTrainedModel) -> str:
    """Return the common prefix of the names of all block parameters, such as `bert.encoder.layer.`.

    Raises:
        UserError: if the blocks share their weights (ALBERT) or cannot be found.
    """
    name = _stack_name(model)
    if name is None:
        raise UserError(
            None,
            "separate layers to copy",
            f"{type(model).__name__}, whose layers share their weights or cannot be found",
            why="a shallower student cannot be made of some of them",
            fix="use student.layers=random or another teacher",
        )
    return f"{name}."


def _stack_name(model: PreTrainedModel) -> str | None:
    depth = model.config.num_hidden_layers
    base = {id(module) for module in model.base_model.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and id(module) in base:
            is_shared = model.config.model_type == "albert"
            return None if is_shared else name
    return None
