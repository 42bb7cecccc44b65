"""The weights that linear layers compute with in training, where they are not those that the optimiser trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainerCallback

from distil_nlp.errors import UserError
from distil_nlp.training.extension import RunningExtension, restore_forward


def refuse_beside(where: str, found: Mapping[str, tuple[bool, str, str]]) -> None:
    """Raise UserError for what does not go together with a change of the student's weights.

    Args:
        where: the recipe's key of the change.
        found: what does not go with it → whether it is used, why it does not, and what to do.
    """
    for got, (is_used, why, fix) in found.items():
        if is_used:
            raise UserError(where, "a student that trains without it", got, why=why, fix=fix)


class LinearChange(TrainerCallback, RunningExtension):
    """A change of what linear layers compute: of their weights, their inputs, or both; the base changes nothing."""

    def weight(self, name: str, weight: Tensor, is_training: bool) -> Tensor:
        """Return the weight, (out, in), that a layer computes with.

        Args:
            name: of the layer.
            weight: as trained, or as changed before.
            is_training: whether the layer is in train mode.
        """
        return weight

    def states(self, states: Tensor, is_training: bool) -> Tensor:
        """Return the input, (…, in), that a layer computes with."""
        return states

    def bake(self) -> None:
        """Make for good what is changed besides the linear layers."""


class EffectiveWeights(RunningExtension):
    """The patch of linear layers' forwards, which compute with changed weights and inputs until `remove`.

    The layers keep their classes, and their parameters the names, so that optimiser, checkpoints and signals find what
    they know; recorders see the layers' inputs and outputs.

    Args:
        layers: by name.
        changes: in the order in which they apply.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], changes: Sequence[LinearChange]):
        self._layers, self._changes = dict(layers), list(changes)
        self._removers = [self._patch(name, layer) for name, layer in self._layers.items()]

    def of(self, name: str, is_training: bool = False) -> Tensor:
        """Return the weight that a layer computes with."""
        weight: Tensor = self._layers[name].weight
        for change in self._changes:
            weight = change.weight(name, weight, is_training)
        return weight

    @torch.no_grad()
    def end(self) -> None:
        """Give the layers for good the weights that they compute with in evaluation."""
        for name, layer in self._layers.items():
            layer.weight.copy_(self.of(name))
        for change in self._changes:
            change.bake()

    def remove(self) -> None:
        """Give the layers their own forwards back."""
        for remove in self._removers:
            remove()
        self._removers = []

    def _patch(self, name: str, layer: nn.Linear) -> Any:
        before = layer.__dict__.get("forward")  # of another trainer

        def forward(layer: nn.Linear, states: Tensor) -> Tensor:
            for change in self._changes:
                states = change.states(states, layer.training)
            return F.linear(states, self.of(name, layer.training), layer.bias)

        patched = MethodType(forward, layer)
        layer.forward = patched  # type: ignore[method-assign]
        return partial(restore_forward, layer, patched, before)
