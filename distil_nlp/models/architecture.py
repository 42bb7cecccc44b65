"""The position of the transformer blocks in a model, and of the feed-forward units in a block."""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError


def layer_stack(model: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer blocks in order of execution; a block that runs several times (ALBERT) is there as often.

    Where a family keeps attentions, norms and feed-forward parts in lists of their own (XLM, FlauBERT), a block is a
    `ModuleList` of its parts, which is never called itself: see `block_parts`.

    Raises:
        UserError: if no stack of `config.num_hidden_layers` blocks can be found.
    """
    lists = [model.get_submodule(name) for name in _stack_names(model)]
    if lists:
        return [parts[0] if len(parts) == 1 else nn.ModuleList(parts) for parts in zip(*lists, strict=True)]
    blocks = _shared_blocks(model)
    if blocks:
        return blocks
    raise UserError(
        None,
        f"a stack of {model.config.num_hidden_layers} layers in {type(model).__name__}",
        "none of that length",
        why="its layers cannot be copied or compared",
        fix="use an encoder such as BERT, RoBERTa or ELECTRA",
    )


def block_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules that the model calls to run a block, the first one first: the block itself, or its parts."""
    return list(block) if isinstance(block, nn.ModuleList) else [block]


_UNITS = {"intermediate.dense": "output.dense", "ffn.lin1": "ffn.lin2", "ffn": "ffn_output"}
"""Names of the layers of a block's feed-forward part, first → last: in BERT and its relatives, DistilBERT, ALBERT."""


def feed_forward_units(model: PreTrainedModel, block: nn.Module) -> nn.Linear:
    """Return the layer of a block whose outputs are its feed-forward units before the activation function.

    Of MobileBERT's four feed-forward parts it is that of the last.

    Raises:
        UserError: if there is none, as where units are gated (ModernBERT) or the sequence goes through in pieces.
    """
    found = _feed_forward_part(model, block)
    if found is None:
        raise _no_units(model, "the activation terms cannot see whether a unit is active", "set their weight to 0")
    return found[0]


def feed_forward_layers(model: PreTrainedModel, block: nn.Module, where: str) -> tuple[nn.Linear, nn.Linear]:
    """Return the layers before and behind a block's feed-forward units, the latter of which reads nothing else.

    Args:
        model: whose block it is.
        block: of its layer stack.
        where: recipe key that needs them, for the error.

    Raises:
        UserError: if there are none, as for `feed_forward_units`.
    """
    found = _feed_forward_part(model, block)
    output = found and found[1]
    if found is None or not isinstance(output, nn.Linear) or output.in_features != found[0].out_features:
        why = "units can be added to plain feed-forward parts alone"
        raise _no_units(model, why, f"take an encoder such as BERT, RoBERTa or DistilBERT, or leave {where} out", where)
    return found[0], output


def _feed_forward_part(model: PreTrainedModel, block: nn.Module) -> tuple[nn.Linear, nn.Module | None] | None:
    """Return the layers of a block's feed-forward part; None where the first is no plain one of the known width."""
    modules, width = dict(block.named_modules()), feed_forward_width(model.config)
    for name, output in _UNITS.items():
        layer = modules.get(name)
        if isinstance(layer, nn.Linear) and layer.out_features == width and not _is_chunked(model.config):
            return layer, modules.get(output)
    return None


def _no_units(model: PreTrainedModel, why: str, fix: str, where: str | None = None) -> UserError:
    return UserError(
        where,
        f"a feed-forward layer of {feed_forward_width(model.config)} units in each block of {type(model).__name__}",
        "one in pieces, by chunk_size_feed_forward" if _is_chunked(model.config) else "none, or gated ones",
        why=why,
        fix=fix,
    )


def feed_forward_width(config: PretrainedConfig) -> int | None:
    """Return the number of feed-forward units of a block; None if the configuration does not give it."""
    return getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None)


def _is_chunked(config: PretrainedConfig) -> bool:
    return bool(getattr(config, "chunk_size_feed_forward", 0))


def ensemble_members(model: nn.Module) -> list[PreTrainedModel]:
    """Return the models of an ensemble, or the model itself."""
    return list(getattr(model, "members", [model]))


def all_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer blocks of all members."""
    return [layer for member in ensemble_members(model) for layer in layer_stack(member)]


def stack_prefixes(model: PreTrainedModel) -> list[str]:
    """Return the prefixes of the names of all block parameters, such as `bert.encoder.layer.`; several in XLM.

    Raises:
        UserError: if the blocks share their weights (ALBERT) or cannot be found.
    """
    names = _stack_names(model)
    if not names:
        raise UserError(
            None,
            "separate layers to copy",
            f"{type(model).__name__}, whose layers share their weights or cannot be found",
            why="a shallower student cannot be made of some of them",
            fix="use student.layers=random or another teacher",
        )
    return [f"{name}." for name in names]


_SHARED = "albert_layer_groups"
"""The list of ALBERT's blocks, each of which runs for several layers."""


def drops_out(model: nn.Module) -> bool:
    """Return whether anything in a model is dropped out in training: by a module, or at a rate that a module keeps."""
    modules = list(model.modules())
    rates = [getattr(module, "p", 0.0) for module in modules if "dropout" in type(module).__name__.lower()]
    rates += [value for module in modules for name, value in vars(module).items() if "dropout" in name]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _stack_names(model: PreTrainedModel) -> list[str]:
    """Return the names of the lists with one entry for each layer: one list of blocks, or several of their parts.

    Lists within a block do not count. Of lists in different places, those of one module that hold most weights are it.
    """
    places: dict[str, list[str]] = {}
    for name, module in _outermost_lists(model):
        if len(module) == model.config.num_hidden_layers and not name.endswith(_SHARED):
            places.setdefault(name.rpartition(".")[0], []).append(name)
    return max(places.values(), key=lambda names: (_weights_in(model, names), -len(names[0])), default=[])


def _outermost_lists(model: PreTrainedModel) -> list[tuple[str, nn.ModuleList | nn.ParameterList]]:
    """Return the lists of modules or parameters in the base model that are in no other list, by name."""
    base = {id(module) for module in model.base_model.modules()}
    found: list[tuple[str, nn.ModuleList | nn.ParameterList]] = []
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList | nn.ParameterList) and id(module) in base and not is_inside:
            found.append((name, module))
    return found


def _weights_in(model: PreTrainedModel, names: list[str]) -> int:
    return sum(weight.numel() for name in names for weight in model.get_submodule(name).parameters())


def _shared_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Return ALBERT's blocks by layer: a group of layers shares one, which may itself be several in a row."""
    groups = next((list(getattr(module, _SHARED)) for module in model.modules() if hasattr(module, _SHARED)), [])
    blocks = [group.albert_layers[0] if len(group.albert_layers) == 1 else group for group in groups]
    depth = model.config.num_hidden_layers
    return [blocks[int(layer / (depth / len(blocks)))] for layer in range(depth)] if blocks else []
