"""Fields of a model's configuration that change how a forward runs or what it returns, set to what distilling needs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers import PretrainedConfig

from distil_nlp.errors import UserError

_OF_A_CALL = {
    "output_attentions": False,  # hooks see attention; SDPA has no maps, and refuses to save a model that asks for them
    "output_hidden_states": False,  # hooks see states; a tuple of all of them would only take memory
    "return_dict": True,  # outputs are read by their names
}
"""Fields that a forward reads each time, and the values that distilling needs."""

_OF_MODULES = {
    "chunk_size_feed_forward": 0,  # same numbers, but lengths must be multiples, and no hook sees whole units
    "layerdrop": 0.0,  # a block that is left out at random has no states to match
}
"""Fields that modules read when they are made."""

_LEFT_OVER = (
    "use_return_dict",  # a property of today's classes, which cannot be set
    "gradient_checkpointing",  # an argument of training
    "torchscript",  # of earlier versions, which then return tuples
    "pruned_heads",  # empty: `_refuse` has seen to that
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
)
"""Fields that earlier versions wrote, or that choose code which not every family has."""

_ATTENTION = ("eager", "sdpa")
"""Implementations of attention that every machine has, and that hooks see."""


def clean_fields(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the fields of a `config.json` as today's classes take them; the dictionary itself if none changes.

    Raises:
        UserError: for fields that no class of today can follow.
    """
    _refuse(raw, name)
    cleaned = {key: value for key, value in raw.items() if key not in _LEFT_OVER}
    cleaned |= {key: value for key, value in {**_OF_A_CALL, **_OF_MODULES}.items() if key in raw}
    if isinstance(raw.get("id2label"), list):
        cleaned["id2label"] = dict(enumerate(map(str, raw["id2label"])))
        cleaned.setdefault("label2id", {label: i for i, label in cleaned["id2label"].items()})
    if isinstance(raw.get("label2id"), list):
        cleaned["label2id"] = {str(label): i for i, label in enumerate(raw["label2id"])}
    if not raw.get("quantization_config"):
        cleaned.pop("quantization_config", None)
    if raw.get("attn_implementation") not in _ATTENTION:
        cleaned.pop("attn_implementation", None)
    return raw if cleaned == raw else cleaned


def set_for_distilling(config: PretrainedConfig) -> PretrainedConfig:
    """Set the fields of a configuration that a forward reads to what distilling needs; return the configuration."""
    for name, value in _OF_A_CALL.items():
        _set(config, name, value)
    return config


def set_for_building(config: PretrainedConfig) -> PretrainedConfig:
    """Set all fields of a configuration that a model is to be made from; return the configuration."""
    set_for_distilling(config)
    for name, value in _OF_MODULES.items():
        _set(config, name, value)
    own = {field.name for field in fields(config)}
    for name in (*_LEFT_OVER[:4], "position_embedding_type"):  # the others are the class's own state
        if name not in own:
            config.__dict__.pop(name, None)
    return config


def _set(config: PretrainedConfig, name: str, value: Any) -> None:
    """Set a field that has another value; one that a family does not have stays away."""
    if getattr(config, name, value) != value:
        setattr(config, name, value)


def _refuse(raw: dict[str, Any], name: str) -> None:
    """Raise a UserError for fields by which the weights in the file are no plain tensors of the model."""
    if raw.get("pruned_heads"):
        raise UserError(
            f"config.json of {name}",
            "all attention heads",
            f"pruned_heads={str(raw['pruned_heads'])[:100]}",
            why="transformers 5 cannot build a model without some of its heads",
            fix="take the checkpoint from before its heads were pruned",
        )
    if raw.get("quantization_config"):
        method = raw["quantization_config"]
        method = method.get("quant_method", "unnamed") if isinstance(method, dict) else method
        raise UserError(
            f"config.json of {name}",
            "weights of 16 or 32 bits",
            f"quantization_config ({str(method)[:100]})",
            why="a student would start from rounded weights that nothing here can read",
            fix="name the checkpoint from before it was quantised, or save it after model.dequantize()",
        )
