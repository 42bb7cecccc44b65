"""Segments of an input, such as the two texts of a pair, as a model can embed them."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


def fit_segments(config: PretrainedConfig, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a model with no segment beyond those that it has embeddings for.

    A tokenizer may number two segments, or three, where the model knows one: a RoBERTa with BERT's tokenizer is trained
    with zeros.
    """
    segments, count = inputs.get("token_type_ids"), getattr(config, "type_vocab_size", None)
    if segments is None or not count:
        return inputs
    return inputs | {"token_type_ids": segments.clamp(max=count - 1)}


def tells_segments(config: PretrainedConfig) -> bool:
    """Return whether a model tells segments apart, so that its tokenizer should number them."""
    return config.model_type != "distilbert" and getattr(config, "type_vocab_size", None) != 1
