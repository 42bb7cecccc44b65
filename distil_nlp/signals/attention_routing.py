"""The attention that a model runs while its signals are recorded, and what can be seen of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.signals.call import Call
from distil_nlp.signals.sdpa import RECORDING_SDPA
from distil_nlp.signals.types import SignalRequest

_BEFORE = "_distil_nlp_attention_before"


def routes_attention(members: Sequence[PreTrainedModel]) -> bool:
    """Return whether transformers can run another attention function in a model, in the form of SDPA."""
    return all(member._can_set_attn_implementation() and member._supports_sdpa for member in members)


def attention_before(model: PreTrainedModel) -> str:
    """Return the attention of a model without recorders."""
    return model.__dict__.get(_BEFORE, model.config._attn_implementation)


def choose_attention(members: Sequence[PreTrainedModel], records: bool) -> None:
    """Let a model run the attention that a recorder needs: the one that records, or the model's own."""
    for member in members:
        before = attention_before(member)
        wanted = RECORDING_SDPA if records else before
        if member.config._attn_implementation != wanted:
            member.__dict__[_BEFORE] = before
            member.set_attn_implementation(wanted)
        for config in _further_configs(member):
            config._attn_implementation = wanted


def give_attention_back(members: Sequence[PreTrainedModel]) -> None:
    """Let a model run its own attention again."""
    for member in members:
        before = member.__dict__.pop(_BEFORE, None)
        if before is None:
            continue
        if member.config._attn_implementation == RECORDING_SDPA:
            member.set_attn_implementation(before)
        for config in _further_configs(member):
            if config._attn_implementation == RECORDING_SDPA:
                config._attn_implementation = before


def _further_configs(model: PreTrainedModel) -> list[PretrainedConfig]:
    """Return the configurations of blocks that were made with another model, whose encoder this one shares."""
    found = {
        id(one): one
        for module in model.modules()
        if isinstance(one := getattr(module, "config", None), PretrainedConfig)
    }
    own = {id(module.config) for module in model.modules() if isinstance(module, PreTrainedModel)}
    return [config for key, config in found.items() if key not in own and hasattr(config, "_attn_implementation")]


def require_maps_only(model: nn.Module, request: SignalRequest) -> None:
    """Raise UserError if more than attention distributions is requested, of a model that shows nothing else."""
    layers = sorted(request.values | request.scores)
    if layers:
        raise UserError(
            None,
            f"queries, keys and values of layers {layers} of {type(model).__name__}",
            "attention that cannot be routed, which shows probabilities alone",
            why="relations and scores cannot be had of it",
            fix="set the weights of attention_scores_mse and of the relations to 0; attention_kl works",
        )


def require_attention(model: nn.Module, request: SignalRequest, call: Call) -> None:
    """Raise UserError if requested attention was not captured."""
    missing = request.attention - call.attention.keys()
    if missing:
        raise UserError(
            None,
            f"attention of layers {sorted(missing)} of {type(model).__name__}",
            "none: its attention neither calls a registered function nor drops out probabilities",
            why="the attention terms cannot see it",
            fix="set their weight to 0",
        )
