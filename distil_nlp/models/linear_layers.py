"""The linear layers of an encoder's blocks: their weights are pruned, and their products are those of int8."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import layer_stack


def encoder_linear_layers(model: PreTrainedModel, where: str) -> dict[str, nn.Linear]:
    """Return the linear layers within a model's blocks by name, each once; ALBERT's blocks share theirs.

    Embeddings, norms, pooler and head are not among them.

    Args:
        model: an encoder, with a head or without.
        where: recipe key that needs them, for the error.

    Raises:
        UserError: if there are none, as where weights are bare parameters (XLNet).
    """
    inside = {id(module) for block in layer_stack(model) for module in block.modules()}
    found = {name: module for name, module in model.named_modules() if id(module) in inside}
    layers = {name: module for name, module in found.items() if type(module) is nn.Linear}
    if layers:
        return layers
    raise UserError(
        where,
        f"linear layers in the blocks of {type(model).__name__}",
        "none",
        why="it is their weights that change",
        fix=f"use an encoder such as BERT, RoBERTa or DistilBERT, or leave {where} out",
    )


def count_zeros(model: PreTrainedModel, where: str) -> dict[str, Any]:
    """Return how many of a model's weights are zero, for `results.json`.

    Args:
        model: as it was saved.
        where: see `encoder_linear_layers`.
    """
    weights = [layer.weight for layer in encoder_linear_layers(model, where).values()]
    zeros, size = sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)
    return {"weights": size, "zeros": zeros / size, "of_all": zeros / model.num_parameters()}
