"""Losses on the logits of a vocabulary, chunk by chunk: no (rows × vocabulary) tensor is ever whole.

At BERT-base's size the logits of 32 × 512 tokens are 1.9 GB in fp32, and a plain loss holds several copies of them for
both models. Here a chunk of rows is projected, its loss and the loss's gradient are taken while the logits are at hand,
and only the gradients of the hidden states and of the projection's weights stay. So nothing is computed twice either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ChunkLoss = Callable[[Tensor, int], Tensor]
"""(logits of a chunk, (rows, vocabulary); the chunk's number) → the terms' sums over its rows, (terms,)."""

_HALF_SCALE = 2.0**12
"""Keeps gradients in half precision, taken before the loss is scaled, above the least that it can hold."""


def chunked_loss(
    states: Tensor, weight: Tensor | None, bias: Tensor | None, look: ChunkLoss, factors: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """(Σ_terms factor · sum, the sums (terms,) without gradient) of losses on `states` · `weight`ᵀ + `bias`.

    The first is what to differentiate, once; it has the gradient of the plain computation. In autocast the products run
    in its dtype and the losses see logits of that dtype; the gradient of the weights adds up in their own.

    Args:
        states: (rows, width). weight: (vocabulary, width). bias: (vocabulary,), or None. Without a weight `states` are
            the logits, (rows, vocabulary).
        look: what to sum over a chunk; each row must add to the sums by itself.
        factors: (terms,), what a unit of each sum weighs in the loss. Known beforehand, because the gradient is taken
            in the forward.
        chunk: rows at a time, at least 1; the last chunk may have fewer.

    Raises:
        ValueError: if `chunk` is below 1.

    Reference: the order of work follows Liger's fused linear losses, arXiv:2410.10989, section 3.2.
    """
    if chunk < 1:
        raise ValueError(f"expected a chunk of at least 1 row / got {chunk}")
    return _ChunkedLoss.apply(states, weight, bias, look, factors, chunk, torch.is_grad_enabled())


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, look, factors, chunk, has_graph):
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        needed = [has_graph and one for one in ctx.needs_input_grad[:3]]
        gradients = [
            torch.zeros_like(one, memory_format=torch.contiguous_format) if is_needed else None
            for one, is_needed in zip((states, weight, bias), needed, strict=True)
        ]
        ctx.scale = _HALF_SCALE if dtype == torch.float16 else 1.0
        with torch.autocast(kind, enabled=False):
            parts = [one if one is None else one.to(dtype) for one in (states, weight, bias)]
            sums = _sum_chunks(*parts, look, factors * ctx.scale, chunk, gradients if any(needed) else None)
        ctx.gradients = gradients
        loss = (sums * factors).sum()
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, loss_gradient, _):
        if ctx.gradients is None:
            raise RuntimeError("expected one backward through weighed_sums / got a second / its gradients are spent")
        gradients, ctx.gradients = ctx.gradients, None
        factor = loss_gradient / ctx.scale
        return (*(one if one is None else one.mul_(factor) for one in gradients), None, None, None, None)


def _sum_chunks(
    states: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    look: ChunkLoss,
    factors: Tensor,
    chunk: int,
    gradients: list[Tensor | None] | None,
) -> Tensor:
    """The sums; adds to the gradients of states, weight and bias, where there are any."""
    total = torch.zeros_like(factors)
    for number, start in enumerate(range(0, len(states), chunk)):
        rows = states[start : start + chunk]
        logits = rows.detach() if weight is None else F.linear(rows, weight, bias)
        if gradients is None:
            total += look(logits, number)
            continue
        with torch.enable_grad():
            sums = look(logits.requires_grad_(), number)
            (slope,) = torch.autograd.grad((sums * factors).sum(), logits)
        total += sums.detach()
        of_states, of_weight, of_bias = gradients
        if of_states is not None:
            of_states[start : start + chunk] = slope if weight is None else slope @ weight
        if of_weight is not None:
            _add_product(of_weight, slope.t(), rows)
        if of_bias is not None:
            of_bias += slope.sum(0)
    return total


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right, whatever the precision of the product."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
