"""A model whose embeddings, and outputs over words, are cut down to some of its vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.trial import keeping_random_state

_IDS = (
    "pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id",
    "decoder_start_token_id",
)  # fmt: skip
"""Ids of tokens in a model's configuration."""


def cut_embeddings(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Return a model of the same class and weights that knows some of the words of another one.

    On texts of kept tokens it gives the same states and, for kept words, the same logits.

    Args:
        model: stays as it is.
        kept: for each new id the id of the same token in `model`.

    Raises:
        UserError: if a token has no embedding in `model`.
    """
    size = int(model.config.vocab_size)
    if max(kept) >= size:
        raise UserError(
            "student.vocabulary",
            f"tokens below {size}, the number of the model's embeddings",
            str(max(kept)),
            why="that token has no embedding",
            fix="take the tokenizer that the model was trained with",
        )
    with keeping_random_state(model.device):
        smaller = type(model)._from_config(smaller_config(model.config, kept), dtype=model.dtype)
    places, state = torch.tensor(kept), model.state_dict()
    shapes = {name: value.shape for name, value in smaller.state_dict().items()}
    smaller.load_state_dict({name: _cut(state[name], shape, places) for name, shape in shapes.items()})
    return smaller.to(model.device).train(model.training)


def smaller_config(config: PretrainedConfig, kept: Sequence[int]) -> PretrainedConfig:
    """Return a configuration of the kept words, with the new ids of its special tokens."""
    smaller, new = copy.deepcopy(config), {number: place for place, number in enumerate(kept)}
    smaller.vocab_size = len(kept)
    for name in _IDS:
        number = getattr(smaller, name, None)
        if isinstance(number, int):
            setattr(smaller, name, new.get(number))
    return smaller


def _cut(value: Tensor, shape: torch.Size, places: Tensor) -> Tensor:
    """Return the rows, or columns, of the kept words where a tensor has one for each word."""
    for dim, (have, wanted) in enumerate(zip(value.shape, shape, strict=True)):
        if have != wanted:
            return value.index_select(dim, places.to(value.device))
    return value
