"""A look at a model before the run loads it; None where that fails, since loading will say what is wrong."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.models import load_config
from distil_nlp.models.empty import shallow_encoder
from distil_nlp.objective.term import ModelShape


def peek_config(name: str, revision: str | None = None) -> PretrainedConfig | None:
    """Return a model's configuration; None where it cannot be had."""
    try:
        return load_config(name, revision)
    except Exception:  # whatever a broken folder, a missing one, or the Hub's client leads to
        return None


def peek_shape(name: str, revision: str | None = None) -> ModelShape | None:
    """Return a model's depth and widths; None where its configuration cannot be had, or does not tell them."""
    try:
        return ModelShape.of(load_config(name, revision))
    except Exception:  # as above
        return None


def peek_encoder(name: str, revision: str | None = None, **fields: Any) -> PreTrainedModel | None:
    """Return a model's encoder without values, see `shallow_encoder`; None where it cannot be built.

    Args:
        name, revision: of the model, whose weights are not read.
        fields: of the configuration, that differ.
    """
    config = peek_config(name, revision)
    if config is None:
        return None
    try:
        config.update(fields)
        return shallow_encoder(config)
    except Exception:  # whatever a family asks for
        return None
