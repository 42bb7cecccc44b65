"""The output projection of a language model: which layer it is, and its forward while signals are recorded."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.signals.call import current_call


def decode(decoder: nn.Linear, states: Tensor) -> Tensor:
    """Run the output projection, as the recorder whose forward it is has it; the forward of a model's decoder."""
    call = current_call()
    if call is None or call.recorder.decoder is not decoder:
        return F.linear(states, decoder.weight, decoder.bias)
    return call.recorder.decode(states)


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
