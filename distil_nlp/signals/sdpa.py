"""SDPA as transformers runs it, which also shows queries, keys and values to whoever waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

RECORDING_SDPA = "distil_nlp_sdpa"
KEEP = "_distil_nlp_keep"


def _recording_sdpa(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """SDPA as transformers runs it, which also shows queries, keys and values to a `Recorder` that waits for them."""
    if hasattr(module, KEEP):
        _show(module, query, key, value, scaling, attention_mask)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


@torch.compiler.disable
def _show(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, mask: Tensor | None
) -> None:
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    module.__dict__[KEEP](query=query, key=key, value=value, scaling=scale, mask=mask)


def show_probabilities(keep: Callable[..., None], module: nn.Module, args: tuple) -> None:
    """A hook on a dropout: its input, if it is an attention map, is the map before dropout."""
    if args[0].dim() == 4 and args[0].shape[-1] == args[0].shape[-2]:
        keep(whole=args[0])


def _mask(*, attention_mask: Tensor | None = None, allow_is_bidirectional_skip: bool = False, **kwargs: Any) -> Any:
    """`sdpa_mask`, but for its look at the values: a mask that is given has padding, and to ask would synchronise."""
    skip = allow_is_bidirectional_skip and attention_mask is None
    return sdpa_mask(attention_mask=attention_mask, allow_is_bidirectional_skip=skip, **kwargs)


AttentionInterface.register(RECORDING_SDPA, _recording_sdpa)
AttentionMaskInterface.register(RECORDING_SDPA, _mask)
