"""Floating-point operations of a training step: forwards of all models, and the backward."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention on a CPU, which torch's own table lacks; the counter passes shapes for tensors."""


class _OneModule:
    """Stands for torch's tracker of modules: all operations are the model's, and no module is hooked.

    The hooks of torch's own fail where blocks run within an autograd function (Reformer).
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Track nothing."""

    def __exit__(self, *args: Any) -> None:
        """Track nothing."""


def flop_counter() -> FlopCounterMode:
    """Return a context in which the operations of matrix products are counted; a multiply-add counts 2."""
    counter: Any = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    counter.mod_tracker = _OneModule()
    return counter
