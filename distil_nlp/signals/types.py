"""What one forward pass shows of a model: logits, hidden states, attention. Nothing that nobody asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.signals.attention import Attention

EMBEDDINGS = -1
"""The number of the embedding output, `hidden_states[0]` of transformers; block i is `hidden_states[i + 1]`."""


@dataclass(frozen=True)
class SignalRequest:
    """What the terms of an objective need to see of one model.

    Attributes:
        logits: whether any term looks at the output.
        hidden: (layer, row set) pairs; layers are 0-based block numbers, `EMBEDDINGS` the embedding output.
        attention: layers whose queries and keys, or attention distributions, are compared.
        values: those of them whose values are compared too.
        scores: those of them whose distributions will not do: queries and keys themselves are looked at.
        activations: (layer, row set) pairs whose feed-forward units are compared, before their activation function.
        weights: layers whose weight matrices are compared.
        input_gradient: whether a loss is differentiated with respect to what the first block is given.
    """

    logits: bool = False
    hidden: frozenset[tuple[int, str]] = frozenset()
    attention: frozenset[int] = frozenset()
    values: frozenset[int] = frozenset()
    scores: frozenset[int] = frozenset()
    activations: frozenset[tuple[int, str]] = frozenset()
    weights: frozenset[int] = frozenset()
    input_gradient: bool = False


@dataclass(frozen=True)
class LazyLogits:
    """Logits that nobody has computed yet: `states` · `weight`ᵀ + `bias`; or `states`, if there is no weight.

    Attributes:
        states: (rows, width), or (rows, vocabulary) logits. weight: (vocabulary, width). bias: (vocabulary,).
    """

    states: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None

    def logits(self, start: int, stop: int) -> Tensor:
        """Of some rows, in the precision of the states, whatever autocast is on."""
        if self.weight is None:
            return self.states[start:stop]
        with torch.autocast(self.states.device.type, enabled=False):
            return F.linear(self.states[start:stop], self.weight, self.bias)


VocabularyLoss = Callable[[LazyLogits], Any]
GradientFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits, embeddings) → the gradient of a loss with respect to the embeddings."""


@dataclass
class Signals:
    """What was seen. `hidden` maps (layer, row set) to (rows, width); `projected` a projection's name to
    (rows, teacher width); `attention` a layer to its queries and keys, or to probabilities; `activations`, as `hidden`,
    to (rows, feed-forward width); `weights` a layer to its matrices; `input_gradient` is (batch, seq, width). Instead
    of `logits` there may be `vocabulary`, which they can be computed from, or `measured`, what was made of that in the
    forward."""

    logits: Tensor | None = None
    hidden: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    projected: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[int, Attention] = field(default_factory=dict)
    activations: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    input_gradient: Tensor | None = None
    vocabulary: LazyLogits | None = None
    measured: Any = None


def forward_with_signals(
    model: nn.Module,
    batch: Mapping[str, Any],
    rows: Mapping[str, Tensor],
    teacher_states: Mapping[str, Tensor] | None = None,
) -> Signals:
    """Run a model (wrapped or not) that carries a `Recorder`, and return the signals of that forward.

    Args:
        batch: columns by name; the model is given those that its forward knows.
        rows: row sets by name.
        teacher_states: the teacher's states for the projections that take them too, by the projections' names.
    """
    inputs = {name: value for name, value in batch.items() if name in forward_arguments(model)}
    return Signals(**model(**inputs, rows=rows, shown=teacher_states))


def forward_arguments(model: nn.Module) -> frozenset[str]:
    """Return the inputs that a model's forward names, other than labels; of what a wrapper (DDP, DeepSpeed) wraps."""
    while isinstance(getattr(model, "module", None), nn.Module):
        model = model.module
    return _arguments(type(model))


@lru_cache
def _arguments(model_class: type[nn.Module]) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters) - {"labels", "kwargs", "self"}


class ProjectionInput(NamedTuple):
    """What a projection is called with.

    Attributes:
        layer, rows: of the student; weights have no rows.
        of: hidden states, feed-forward units, or a block's matrices.
        teacher: (layer, row set) of the teacher's hidden states, for what must see both: they are the second argument.
            Everything a projection does then lies within the student's wrapped forward.
    """

    layer: int
    rows: str
    of: Literal["hidden", "activations", "weights"] = "hidden"
    teacher: tuple[int, str] | None = None
