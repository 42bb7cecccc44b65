"""The tensors in a model's files, by the files' headers, and the sizes of its configuration compared with them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PretrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from distil_nlp.errors import UserError
from distil_nlp.models.empty import empty_encoder
from distil_nlp.models.positions import NO_LIMIT, trained_positions, usable_positions

Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by their names."""

_COUNT = re.compile(
    r"(num|n)_(.*_)?(layers?|blocks?|groups?|experts|networks|functions|repeats)|inner_group_num|depth|block_sizes"
    r"|(encoder|decoder)_layers"
)
"""Fields that count modules, each of which has tensors of its own."""
_MOST_MODULES = 128
"""Modules that a file with few tensors may have: ALBERT's layers share theirs."""
_MOST_LABELS = 10**5


def tensors_of(place: str, revision: str | None = None, *, cached_only: bool = False, **options: Any) -> Shapes:
    """Return the shapes of the tensors in a model's safetensors files; none if it has no such files.

    Args:
        place: folder or name on the Hub.
        revision: branch, tag or commit.
        cached_only: True to look at files on this machine alone.
        options: ignored; `from_pretrained` takes them.

    Raises:
        ValueError: if the configuration or the index names weights that are not safetensors in the model's own folder.
    """
    shapes: Shapes = {}
    for name in weight_files(place, revision, cached_only):
        path = _file(place, name, revision, cached_only)
        if path is not None:
            with safe_open(path, "pt") as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return shapes


def weight_files(place: str, revision: str | None, cached_only: bool = False) -> list[str]:
    """Return the names of a model's safetensors files, whether they are there or not.

    A configuration or an index of safetensors may name a pickle, which transformers would then read, or a file outside
    the model's folder.

    Raises:
        ValueError: if so, with the name.
    """
    options = {"local_files_only": True} if cached_only else {}
    weights = PretrainedConfig.get_config_dict(place, revision=revision, **options)[0].get("transformers_weights")
    index = _file(place, SAFE_WEIGHTS_INDEX_NAME, revision, cached_only)
    shards = json.loads(Path(index).read_text(encoding="utf-8")).get("weight_map", {}) if index else {}
    files = [*dict.fromkeys(map(str, [*filter(None, [weights]), *shards.values()]))]
    for file in files:
        if not file.endswith(".safetensors") or re.search(r"[/\\]", file):
            raise ValueError(f"the weights are in {file!r}, which is no safetensors file beside config.json")
    is_whole = _file(place, SAFE_WEIGHTS_NAME, revision, cached_only) is not None
    return [SAFE_WEIGHTS_NAME] if is_whole and not weights else files


def check_counts(raw: dict[str, Any], tensors: Shapes, name: str) -> None:
    """Check that a `config.json` has no more modules and labels than its weights may have; nothing is built for it.

    Raises:
        UserError: if it has, with the field and both numbers.
    """
    most = max(len(tensors), _MOST_MODULES)
    labels = max(_MOST_LABELS, *(size for shape in tensors.values() for size in shape), 0)
    for field, value in _numbers(raw):
        limit = labels if field in ("num_labels", "_num_labels") else most if _COUNT.fullmatch(field) else None
        if limit is not None and value > limit:
            raise _too_large(name, f"{field}={value:,}", f"{len(tensors):,} tensors", limit)


def check_sizes(config: PretrainedConfig, tensors: Shapes, name: str) -> None:
    """Check that a model of this configuration is not many times as large as its weights.

    Raises:
        UserError: if it is, with its largest tensor.
    """
    if not tensors:
        return
    positions, widest = trained_positions(config), max(size for shape in tensors.values() for size in shape)
    if positions is not None and positions > 8 * widest and _has_table(config):
        raise _too_large(name, f"max_position_embeddings={positions:,}", f"no tensor wider than {widest:,}", widest)
    there = sum(map(math.prod, tensors.values()))
    try:
        encoder = empty_encoder(config)
    except Exception:  # whatever is wrong with the configuration, loading will say
        return
    if sum(weight.numel() for weight in encoder.parameters()) > 4 * there + 10**7:
        key, weight = max(encoder.named_parameters(), key=lambda item: item[1].numel())
        raise _too_large(name, f"{key} of {_shape(weight.shape)}", f"{there:,} numbers in all tensors", there)


def _has_table(config: PretrainedConfig) -> bool:
    """Return whether a model has a table of positions; tables of this size are not asked to be built."""
    few = type(config).from_dict({**config.to_dict(), "max_position_embeddings": 8})
    return usable_positions(few) < NO_LIMIT


def _numbers(raw: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a configuration with the names of their fields, nested ones too; a list as its sum."""
    for field, value in raw.items():
        if isinstance(value, dict):
            yield from _numbers({str(key): item for key, item in value.items()})
        elif isinstance(value, list) and value and all(isinstance(item, int) for item in value):
            yield field, sum(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield field, value


def _file(place: str, name: str, revision: str | None, cached_only: bool) -> str | None:
    return cached_file(
        place,
        name,
        revision=revision,
        local_files_only=cached_only,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{size:,}" for size in shape)


def _too_large(name: str, got: str, there: str, limit: int) -> UserError:
    return UserError(
        f"config.json of {name}",
        f"sizes of the weights beside it: {there}, so at most {limit:,}",
        got,
        why="it would be built until memory ends",
        fix="restore the config.json that belongs to these weights",
    )
