"""The signals of one forward pass, and the request for them: only what is requested is captured."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.signals.attention import Attention
from distil_nlp.signals.call import Call, calling

EMBEDDINGS = -1
"""The number of the embedding output, `hidden_states[0]` of transformers; block i is `hidden_states[i + 1]`."""
RECORDERS = "_distil_nlp_recorders"
"""The attribute of a model that lists the recorders on it, the newest last."""


@dataclass(frozen=True)
class SignalRequest:
    """The signals of one model that the terms of an objective need.

    Attributes:
        logits: True if any term uses the output.
        hidden: (layer, row set) pairs; layers are 0-based block numbers, `EMBEDDINGS` the embedding output.
        attention: layers whose queries and keys, or attention distributions, are compared.
        values: the layers among these whose values are compared too.
        scores: the layers among these that need queries and keys themselves; distributions are not enough.
        activations: (layer, row set) pairs whose feed-forward units are compared, before their activation function.
        weights: layers whose weight matrices are compared.
        input_gradient: True if a loss is differentiated with respect to the input of the first block.
        states: blocks, other than the last, whose whole states go into a module within the forward.
    """

    logits: bool = False
    hidden: frozenset[tuple[int, str]] = frozenset()
    attention: frozenset[int] = frozenset()
    values: frozenset[int] = frozenset()
    scores: frozenset[int] = frozenset()
    activations: frozenset[tuple[int, str]] = frozenset()
    weights: frozenset[int] = frozenset()
    input_gradient: bool = False
    states: frozenset[int] = frozenset()

    @property
    def has_layers(self) -> bool:
        """Whether anything of single blocks is requested."""
        return self.reads_states or bool(self.weights)

    @property
    def reads_states(self) -> bool:
        """Whether anything is requested that a forward computes before its output."""
        return bool(self.hidden or self.states or self.attention or self.activations or self.input_gradient)


@dataclass(frozen=True)
class LazyLogits:
    """Logits that are not computed yet: `states` · `weight`ᵀ + `bias`; or `states`, if there is no weight.

    Attributes:
        states: (rows, width), or (rows, vocabulary) logits.
        weight: (vocabulary, width), or None.
        bias: (vocabulary,), or None.
        words: columns of the logits, of a weight that is filled up; None for all.
    """

    states: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    words: int | None = None

    def logits(self, start: int, stop: int) -> Tensor:
        """Return the logits of rows `start` to `stop`, in the precision of the states, whatever autocast is on."""
        if self.weight is None:
            return self.states[start:stop]
        with torch.autocast(self.states.device.type, enabled=False):
            return F.linear(self.states[start:stop], self.weight, self.bias)[:, : self.words]


class DeferredLogits(ABC):
    """Logits of a teacher that depend on the temperature at which they are read, or on the student's logits."""

    @abstractmethod
    def logits_for(self, student: Tensor, temperature: float) -> Tensor:
        """Return the logits, (rows, classes), for a student's logits of the same rows, to be read at a temperature."""


VocabularyLoss = Callable[[LazyLogits], Any]
"""Logits of a vocabulary → a loss on them, computed within the forward."""
GradientFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits, embeddings) → the gradient of a loss with respect to the embeddings."""


@dataclass
class Signals:
    """The captured signals of one forward pass. Only requested signals are set.

    Attributes:
        logits: (rows, classes), or (windows, seq, 2) of start and end, a tensor; None where they are not computed. A
            teacher's may be `DeferredLogits`, which the objective turns into a tensor for each term, or a dict by row
            set, where it reads other tokens than the student.
        hidden: (layer, row set) → (rows, width).
        projected: a projection's name → its output: (rows, teacher width) for a linear projection, (batch, classes) for
            a module that gives logits.
        attention: layer → its queries and keys, or its probabilities.
        activations: (layer, row set) → (rows, feed-forward width).
        weights: layer → its matrices.
        input_gradient: (batch, seq, width).
        vocabulary: in place of `logits`, from which they can be computed.
        measured: in place of `logits`, the result of a `VocabularyLoss` within the forward.
    """

    logits: Any = None
    hidden: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    projected: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[int, Attention] = field(default_factory=dict)
    activations: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    input_gradient: Tensor | None = None
    vocabulary: Any = None
    measured: Any = None


def forward_with_signals(
    model: nn.Module,
    batch: Mapping[str, Any],
    rows: Mapping[str, Tensor],
    teacher_states: Mapping[str, Tensor] | None = None,
    recorder: Any = None,
) -> Signals:
    """Run a model (wrapped or not) that carries a `Recorder`, and return the signals of that forward.

    Args:
        batch: columns by name; the model is given those that its forward knows.
        rows: row sets by name.
        teacher_states: the teacher's states for the projections that take them too, by the projections' names.
        recorder: the one whose signals are meant, of several on the model; the newest if None.
    """
    recorder = recorder or _unwrapped(model).__dict__[RECORDERS][-1]
    inputs = {name: value for name, value in batch.items() if name in forward_arguments(model)}
    with calling(Call(recorder, rows, teacher_states or {})):
        return Signals(**model(**inputs))


def forward_arguments(model: nn.Module) -> frozenset[str]:
    """Return the inputs that a model's forward names, other than labels; of what a wrapper (DDP, DeepSpeed) wraps."""
    model_class: Any = type(_unwrapped(model))
    return _arguments(model_class)


def _unwrapped(model: nn.Module) -> nn.Module:
    while isinstance(wrapped := getattr(model, "module", None), nn.Module):
        model = wrapped
    return model


@lru_cache
def _arguments(model_class: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters) - {"labels", "kwargs", "self"}


class ProjectionInput(NamedTuple):
    """The input of a projection.

    Attributes:
        layer, rows: layer and row set of the student; weights, states and inputs have no row set, inputs no layer.
        of: hidden states, feed-forward units or a block's matrices; or all that a module needs to go on from within
            the student: `states` for (the whole states that leave a block, as the next one gets them; the inputs of the
            model by name), `inputs` for the inputs alone.
        teacher: (layer, row set) of the teacher's hidden states, for modules that take both models' states: they are
            the second argument. All of a projection's work is then within the student's wrapped forward.
    """

    layer: int
    rows: str
    of: Literal["hidden", "activations", "weights", "states", "inputs"] = "hidden"
    teacher: tuple[int, str] | None = None
