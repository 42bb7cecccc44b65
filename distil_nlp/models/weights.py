"""Comparison of a model's tensors with those of its file: those that the file lacks, those that no module reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.checkpoint import Shapes

_HEAD_WITHIN = re.compile(r"(^|\.)(\w*pooler\w*|lm_head|cls|classifier|qa_outputs|decoder)\.")
"""Parts of an encoder that are of use to its head alone: a pooler, and Funnel's decoder, may be new or unread."""
_NOT_LEARNT = re.compile(
    r"(^|\.)(position_ids|token_type_ids|original_inv_freq|inv_freq|masked_bias|num_batches_tracked)$"
)
"""Constants that earlier versions wrote beside the weights."""


def weigh(model: PreTrainedModel, info: dict[str, Any], tensors: Shapes, name: str) -> None:
    """Check that the encoder has all its weights from the file, and that the file has no others for it.

    A head may be new, heads of other tasks may be unread.

    Args:
        model: as loaded.
        info: the `output_loading_info` of `from_pretrained`, with `ignore_mismatched_sizes`.
        tensors: those of the file.
        name: the model's, for messages.

    Raises:
        UserError: if sizes differ, weights are missing or tensors are not read, with their names.
    """
    _check_shapes(info["mismatched_keys"], name)
    check_missing(model, info["missing_keys"], tensors, name)
    _check_unread(model, info["unexpected_keys"], tensors, name)


def check_missing(model: PreTrainedModel, missing: Iterable[str], tensors: Collection[str], name: str) -> None:
    """Check that no weight of the encoder is missing.

    Args:
        model: the encoder, or a model with a head.
        missing: names of weights that were not loaded.
        tensors: names of those that were there.
        name: the model's, for messages.

    Raises:
        UserError: if some are, with their names, and the names that were there instead.
    """
    needed = {key for key in model.state_dict() if _is_encoders(model, key)}
    lacking = sorted(needed & set(missing))
    if not lacking:
        return
    prefix = _common_prefix(model, needed, tensors)
    instead = f", but {_some(tensors) or 'no tensor at all'}" if len(lacking) == len(needed) else ""
    raise UserError(
        None,
        f"the weights of a {type(model.base_model).__name__} in {name}",
        f"none for {len(lacking)} of its {len(needed)} tensors ({_some(lacking)}){instead}",
        why="they would start from random numbers; only a head may be new",
        fix=_fix_of_missing(model, prefix, tensors),
    )


def _check_shapes(mismatched: Iterable[tuple[str, Any, Any]], name: str) -> None:
    differing = [f"{key} of {tuple(there)} instead of {tuple(needed)}" for key, there, needed in sorted(mismatched)]
    if differing:
        raise UserError(
            None,
            f"tensors of the sizes that config.json gives in {name}",
            f"{_some(differing)}{f', {len(differing)} in all' if len(differing) > 3 else ''}",
            why="they cannot be loaded",
            fix="restore the config.json that belongs to these weights",
        )


def _check_unread(model: PreTrainedModel, unread: Iterable[str], tensors: Collection[str], name: str) -> None:
    ours = sorted(key for key in unread if _is_for_encoder(model, key, tensors))
    if ours:
        raise UserError(
            None,
            f"a {type(model.base_model).__name__} that reads all weights of the encoder in {name}",
            f"{len(ours)} tensors that none of its modules reads ({_some(ours)})",
            why="it would compute something else than what was trained",
            fix=_fix_of_unread(model, ours),
        )


def _is_encoders(model: PreTrainedModel, key: str) -> bool:
    """Return whether a parameter of the model belongs to its encoder, poolers apart."""
    prefix = f"{model.base_model_prefix}."
    is_within = model.base_model is model or key.startswith(prefix)
    return is_within and not _HEAD_WITHIN.search(key.removeprefix(prefix)) and not _NOT_LEARNT.search(key)


def _is_for_encoder(model: PreTrainedModel, key: str, tensors: Collection[str]) -> bool:
    """Return whether a tensor of the file was meant for the encoder.

    By the encoder's prefix; in a file of an encoder alone, which has none, by the name of one of its parts.
    """
    prefix = f"{model.base_model_prefix}."
    has_prefix = any(name.startswith(prefix) for name in tensors)
    parts = {name for name, _ in model.base_model.named_children()}
    is_within = key.startswith(prefix) if has_prefix else key.split(".")[0] in parts
    return is_within and not _HEAD_WITHIN.search(key.removeprefix(prefix)) and not _NOT_LEARNT.search(key)


def _common_prefix(model: PreTrainedModel, needed: Collection[str], tensors: Iterable[str]) -> str:
    """Return what stands in front of most of the needed names in the file; empty if nothing does."""
    base = f"{model.base_model_prefix}."
    known = set(needed) | {key.removeprefix(base) for key in needed}
    prefixes: Counter[str] = Counter()
    for tensor in tensors:
        parts = tensor.split(".")
        start = next((i for i in range(len(parts)) if ".".join(parts[i:]) in known), 0)
        if start:
            prefixes[".".join(parts[:start]) + "."] += 1
    prefix, count = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
    return prefix.removesuffix(base) if count > len(needed) // 4 else ""


def _fix_of_missing(model: PreTrainedModel, prefix: str, tensors: Iterable[str]) -> str:
    family = prefix.rstrip(".").replace("_", "-")
    if family in CONFIG_MAPPING or prefix.rstrip(".") in CONFIG_MAPPING:
        return f"restore its config.json: model_type is {model.config.model_type!r}, the names are those of a {family}"
    if prefix:
        return (
            f"take the prefix {prefix!r} off all names, with safetensors.torch: save_file({{key.removeprefix({prefix!r}"
            "): weight for key, weight in load_file(file).items()}, file, metadata={'format': 'pt'})"
        )
    return _fix_of_adapters(tensors) or "check that config.json belongs to these weights, and that no file is cut"


def _fix_of_unread(model: PreTrainedModel, unread: list[str]) -> str:
    if any("distance_embedding" in key for key in unread):
        return "take a checkpoint with absolute positions: transformers 5 has no relative ones in this family"
    blocks = max((int(number) for key in unread for number in re.findall(r"\.(\d+)\.", key)[:1]), default=-1)
    if blocks >= model.config.num_hidden_layers:
        return (
            f"check num_hidden_layers in config.json (the file has blocks up to {blocks}), and that it belongs to the "
            "weights"
        )
    fix = _fix_of_adapters(unread)
    return fix or "check that config.json belongs to these weights, and that transformers knows this kind of model"


def _fix_of_adapters(names: Iterable[str]) -> str | None:
    if any(re.search(r"lora_|\.base_layer\.|adapter", key) for key in names):
        return "merge the adapters into the weights: with peft, model.merge_and_unload().save_pretrained(folder)"
    return None


def _some(names: Iterable[str]) -> str:
    names = [*names]
    return ", ".join(name[:100] for name in names[:3]) + (" …" if len(names) > 3 else "")
