"""The output projection of a language model: which layer it is, and what it returns while signals are recorded.

The vocabulary's logits are the largest tensor of a step. The projection can return its input instead, so that losses go
through the logits chunk by chunk: the teacher's leave the forward in that form (`LazyLogits`), the student's losses are
computed within it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.signals.call import Call, current_call
from distil_nlp.signals.types import LazyLogits, VocabularyLoss


class OutputProjection:
    """The output projection of a model, as one recorder has it.

    Args:
        model: a language model.
        projects: True for logits as a whole; otherwise, and where a loss is measured, they stay lazy.

    Attributes:
        decoder: the layer; None where the head projects in its own way.
    """

    def __init__(self, model: PreTrainedModel, projects: bool):
        self.decoder, self._projects = output_projection(model), projects
        self._measure: VocabularyLoss | None = None
        self._embedding: Any = None
        if self.decoder is not None:
            self.decoder.forward = partial(_decode, self.decoder)  # type: ignore[method-assign]
            embedding = model.get_input_embeddings()
            self._embedding = embedding if embedding.weight is self.decoder.weight else None

    def release(self) -> None:
        """Give the layer its own forward back."""
        if self.decoder is not None:
            self.decoder.__dict__.pop("forward", None)

    @property
    def _is_whole(self) -> bool:
        return self._projects and self._measure is None

    @contextmanager
    def measuring(self, measure: VocabularyLoss) -> Iterator[None]:
        """Within this context, pass the logits to `measure`, inside the forward."""
        self._measure = measure
        try:
            yield
        finally:
            self._measure = None

    def whole(self, call: Call, logits: Tensor) -> Tensor | None:
        """Return the logits of a head that projects in its own way; None once they are kept as lazy ones."""
        if self._is_whole:
            return logits
        self._keep(call, LazyLogits(logits))
        return None

    def decode(self, call: Call, states: Tensor) -> Tensor:
        """Return what the layer gives: its input, if the logits are not wanted as a whole."""
        decoder = self.decoder
        assert decoder is not None  # it calls this
        if self._is_whole:
            return F.linear(states, decoder.weight, decoder.bias)
        self._keep(call, LazyLogits(states.squeeze(1), decoder.weight, decoder.bias))
        return states

    def _keep(self, call: Call, vocabulary: LazyLogits) -> None:
        """Keep the lazy logits, or the loss that is measured on them."""
        if self._measure is None:
            call.vocabulary = vocabulary
        else:
            call.measured = self._measure(vocabulary)

    def begin(self) -> None:
        """Make the word embedding's gradient sparse on the CPU if its weights are the layer's, and a loss is measured.

        The rows of a batch's words are then added to the gradient of the projection, which is dense already, instead of
        a second table of mostly zeros. Set during the forward only, since DDP would take the sum for sparse.
        """
        if self._embedding is not None:
            self._embedding.sparse = self._measure is not None and self._embedding.weight.device.type == "cpu"

    def end(self) -> None:
        """Undo `begin`."""
        if self._embedding is not None:
            self._embedding.sparse = False


def _decode(decoder: nn.Linear, states: Tensor) -> Tensor:
    """Run the output projection, as the recorder whose forward it is has it; the forward of a model's decoder."""
    call = current_call()
    projection = call and call.recorder.output_projection
    if call and projection and projection.decoder is decoder:
        return projection.decode(call, states)
    return F.linear(states, decoder.weight, decoder.bias)


@torch.no_grad()
def output_projection(model: PreTrainedModel) -> nn.Linear | None:
    """Return the layer whose output is the logits, unchanged, or None if the head projects in another way.

    DeBERTa's newer head, ESM and MobileBERT have no such layer. A forward of two tokens shows it.
    """
    decoder, outputs, thread = model.get_output_embeddings(), [], threading.get_ident()
    if not isinstance(decoder, nn.Linear) or decoder.out_features != model.config.vocab_size:
        return None

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        if threading.get_ident() == thread:
            outputs.append(output)

    handle, was_training = decoder.register_forward_hook(keep), model.training
    logits = model.eval()(input_ids=torch.ones(1, 2, dtype=torch.long, device=decoder.weight.device)).logits
    handle.remove()
    model.train(was_training)
    return decoder if len(outputs) == 1 and outputs[0] is logits else None
