"""SDPA as transformers runs it, which also hands queries, keys and values to a `Recorder`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distil_nlp.signals.call import current_call

RECORDING_SDPA = "distil_nlp_sdpa"
KEEP = "_distil_nlp_keep"
"""The attribute of the modules within a layer whose attention some `Recorder` captures: the layer."""


def _recording_sdpa(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Run transformers' SDPA; hand queries, keys and values to the `Recorder` whose forward it is."""
    if hasattr(module, KEEP):
        mask = _seen(module, query, key, attention_mask, kwargs.get("is_causal"))
        _hand_over(module, query, key, value, scaling, mask)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def _seen(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None) -> Tensor | None:
    """Return the mask; where there is none and SDPA is told to look to the left alone, that as a mask."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if mask is not None or not causal or query.shape[2] == 1:
        return mask
    return torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]


@torch.compiler.disable
def _hand_over(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, mask: Tensor | None
) -> None:
    call = current_call()
    if call is not None:
        groups = query.shape[1] // key.shape[1]  # in grouped-query attention several heads share keys and values
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        owner = module.__dict__[KEEP]
        call.recorder.keep_attention(owner, query=query, key=key, value=value, scaling=scale, mask=mask)


def show_probabilities(keep: Callable[..., None], module: nn.Module, args: tuple) -> None:
    """Hand the input of a dropout to `keep` if it is an attention map: the map before dropout. A forward pre-hook."""
    if args[0].dim() == 4 and args[0].shape[-1] == args[0].shape[-2]:
        keep(whole=args[0])


def _mask(*, attention_mask: Tensor | None = None, allow_is_bidirectional_skip: bool = False, **kwargs: Any) -> Any:
    """Return `sdpa_mask` without reading the mask's values: a given mask has padding, and a read would synchronise."""
    skip = allow_is_bidirectional_skip and attention_mask is None
    return sdpa_mask(attention_mask=attention_mask, allow_is_bidirectional_skip=skip, **kwargs)


AttentionInterface.register(RECORDING_SDPA, _recording_sdpa)
AttentionMaskInterface.register(RECORDING_SDPA, _mask)
