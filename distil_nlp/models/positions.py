"""The number of positions that a model can embed, as its own embeddings count them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from distil_nlp.models.empty import shallow_encoder

NO_LIMIT = 10**6
"""Positions of a model without a table of them, such as one with relative or rotary positions alone."""

_TABLE = re.compile(r"\b(position_embeddings?|char_position_embeddings|embed_positions|wpe)$")


def usable_positions(config: PretrainedConfig) -> int:
    """Return the number of tokens that a model of this configuration can embed the positions of.

    The rows of its table, less those before the first token's: some families count from the padding's id on. Relative
    and rotary positions have no table, and so no limit.
    """
    return _usable(_Hashable(config))


def trained_positions(config: PretrainedConfig) -> int | None:
    """Return the longest input that a model was made for, by its configuration; None if that names none."""
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


class _Hashable:
    """A configuration that equals others of the same class and fields."""

    def __init__(self, config: PretrainedConfig):
        self.config, self.key = config, (type(config), config.to_json_string(use_diff=False))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self.key == other.key


@lru_cache
def _usable(hashable: _Hashable) -> int:
    config = hashable.config
    try:
        model = shallow_encoder(config)
    except Exception:  # whatever an impossible configuration leads to: loading the model says so in words
        return trained_positions(config) or NO_LIMIT
    return min((_positions(model, name) for name in _tables(model)), default=NO_LIMIT)


def _tables(model: nn.Module) -> list[str]:
    """Return the names of the tables of positions; tables within blocks are of distances."""
    return [
        name
        for name, module in model.named_modules()
        if _TABLE.search(name) and not re.search(r"\.\d", name) and getattr(module, "weight", None) is not None
    ]


def _positions(model: nn.Module, name: str) -> int:
    table: Any = model.get_submodule(name)
    owner: Any = model.get_submodule(name.rpartition(".")[0])
    rows, padding = table.weight.shape[0], getattr(table, "padding_idx", None)
    if padding is not None:
        return rows - padding - 1
    numbers = getattr(owner, "position_ids", None)
    return rows if numbers is None else min(rows, numbers.shape[-1])
