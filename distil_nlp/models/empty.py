"""Models without weights, on the meta device: their modules and shapes, at no cost in memory."""

from __future__ import annotations

import copy

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from distil_nlp.utils.logging import quiet_transformers


def empty_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """Return the encoder of a configuration with tensors that have shapes and no values."""
    config = copy.deepcopy(config)
    with quiet_transformers(), no_init_weights(), torch.device("meta"):
        return AutoModel.from_config(config)


def shallow_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """Return `empty_encoder` with one block, or with all blocks if its classes insist on them."""
    shallow = copy.deepcopy(config)
    try:
        if getattr(shallow, "layer_types", None):
            shallow.layer_types = shallow.layer_types[:1]
        shallow.num_hidden_layers = 1
        return empty_encoder(shallow)
    except Exception:  # fields that go with the depth
        return empty_encoder(config)
