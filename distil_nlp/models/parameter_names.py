"""Names of parameters: the number of the block that one is in, and the part of the model."""

from __future__ import annotations

import re

from transformers import PreTrainedModel

_EMBEDDINGS = re.compile(r"(^|\.)\w*embeddings?(_\w+)?\.")
"""Names of embeddings: of words, positions and segments, relative ones too, and their projection to the width."""


def part_of(name: str, model: PreTrainedModel) -> str:
    """Return the part of a model that a parameter is in: `embeddings`, `layers` or `head`.

    The pooler belongs to the head; relative positions and norms of all blocks together to the layers.
    """
    is_within = model.base_model is model or name.startswith(f"{model.base_model_prefix}.")
    if not is_within or "pooler" in name.split("."):
        return "head"
    return "embeddings" if _EMBEDDINGS.search(name) else "layers"


def split_name(name: str, prefixes: list[str]) -> tuple[str, int | None, str]:
    """Split a parameter's name at the number of its block; the number is None if it is in no block."""
    for prefix in prefixes:
        if name.startswith(prefix):
            number, dot, rest = name.removeprefix(prefix).partition(".")
            return prefix, int(number), f"{dot}{rest}"
    return name, None, ""
