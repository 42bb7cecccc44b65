"""The pooled state of a text: what the teacher's output layer reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import ensemble_members


@contextmanager
def keep_pooled_states(model: Any, wanted: bool = True) -> Iterator[Callable[[int], np.ndarray]]:
    """Keep what the output layer of a classifier reads in forwards inside the context.

    Yields:
        a function that returns the states of the last so many rows, (rows, width).

    Raises:
        UserError: for an ensemble, and for a head without an output layer that reads one state a text.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0].float().cpu())

    handle = _output_layer(model).register_forward_pre_hook(keep) if wanted else None
    try:
        yield lambda rows: torch.cat(kept)[-rows:].numpy()  # a recorder may have tried the model on others before
    finally:
        if handle is not None:
            handle.remove()


def _output_layer(model: Any) -> nn.Linear:
    """Return the last linear layer of a classifier's head, which gives the logits."""
    members = ensemble_members(model)
    if len(members) > 1:
        raise _refusal(f"an ensemble of {len(members)}", "each has states of its own")
    (model,) = members
    encoder = set(model.base_model.modules())
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module not in encoder and module.out_features == model.config.num_labels
    ]
    if not layers:
        raise _refusal(type(model).__name__, "it has no output layer that reads one state a text")
    return layers[-1]


def _refusal(got: str, why: str) -> UserError:
    return UserError("--input", "one teacher with a linear output layer", got, why=why, fix="leave out --input")
