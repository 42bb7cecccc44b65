"""Losses on the logits of a vocabulary, chunk by chunk: a whole (rows × vocabulary) tensor is never in memory.

For BERT-base the logits of 32 × 512 tokens take 1.9 GB in fp32, and a plain loss keeps several copies of them for both
models. Here the loss of a chunk of rows and its gradient are computed while the chunk's logits are in memory, and only
the gradients of the hidden states and of the projection's weights are kept. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ChunkLoss = Callable[[Tensor, int], Tensor]
"""(logits of a chunk, (rows, vocabulary); number of the chunk) → the sums of the terms over its rows, (terms,)."""
InPlaceLoss = Callable[[Tensor, int, Tensor], Tensor | None]
"""(logits of a chunk, its number, factors (terms,)) → the sums, with the gradient of Σ factor · sum in place of the
logits; or None, with the logits as they were."""

_HALF_SCALE = 2.0**12
"""Scale of gradients in half precision, which are computed before the loss is scaled, against underflow."""


def chunked_loss(
    states: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    loss: ChunkLoss,
    factors: Tensor,
    chunk: int,
    in_place: InPlaceLoss | None = None,
    align: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return (Σ_terms factor · sum, the sums (terms,) without gradient) of losses on `states` · `weight`ᵀ + `bias`.

    The first can be differentiated once, with the gradient of the unchunked computation. In autocast the matrix
    products run in its dtype and the losses get logits of that dtype; the gradient of the weights is accumulated in
    the dtype of the weights.

    Args:
        states: (rows, width); without a weight the logits, (rows, vocabulary).
        weight: (vocabulary, width), or None.
        bias: (vocabulary,), or None.
        loss: the sums over a chunk; each row must contribute to the sums independently of the others.
        factors: (terms,), the factor of each sum in the loss. Needed beforehand, because the gradient is computed in
            the forward.
        chunk: number of rows of a chunk, at least 1; the last chunk may have fewer.
        in_place: computes sums and gradient of logits that the projection made, where it can; `loss` does elsewhere.
        align: the projection runs on a vocabulary that is filled up to a multiple of this, without a change of what
            comes out: products whose widths are odd numbers are slow on GPUs.

    Raises:
        ValueError: if `chunk` is below 1.

    Reference: the order of work follows Liger's fused linear losses, arXiv:2410.10989, section 3.2.
    """
    if chunk < 1:
        raise ValueError(f"expected a chunk of at least 1 row / got {chunk}")
    how = _Chunks(loss, in_place if weight is not None else None, chunk, align if weight is not None else 1)
    return _ChunkedLoss.apply(states, weight, bias, how, factors, torch.is_grad_enabled())


@dataclass(frozen=True)
class _Chunks:
    """What is done with each chunk; see `chunked_loss`."""

    loss: ChunkLoss
    in_place: InPlaceLoss | None
    size: int
    align: int


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, how, factors, has_graph):
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        needed = [has_graph and needs_gradient for needs_gradient in ctx.needs_input_grad[:3]]
        words = states.shape[1] if weight is None else len(weight)
        gradients = [
            tensor.new_zeros(len(tensor) + missing_rows(tensor, align), *tensor.shape[1:]) if is_needed else None
            for tensor, is_needed, align in zip((states, weight, bias), needed, (1, how.align, how.align), strict=True)
        ]
        ctx.scale = _HALF_SCALE if dtype == torch.float16 else 1.0
        with torch.autocast(kind, enabled=False):
            states, weight, bias = (None if tensor is None else tensor.to(dtype) for tensor in (states, weight, bias))
            weight, bias = (None if tensor is None else filled_up(tensor, how.align) for tensor in (weight, bias))
            kept = gradients if any(needed) else None
            sums = _sum_chunks(states, weight, bias, words, how, factors * ctx.scale, kept)
        ctx.gradients = [gradients[0], *(None if one is None else one[:words] for one in gradients[1:])]
        loss = (sums * factors).sum()
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, loss_gradient, _):
        if ctx.gradients is None:
            raise RuntimeError("expected one backward through chunked_loss / got a second / its gradients are spent")
        gradients, ctx.gradients = ctx.gradients, None
        factor = loss_gradient / ctx.scale
        return (*(None if tensor is None else tensor.mul_(factor) for tensor in gradients), None, None, None)


def missing_rows(tensor: Tensor, align: int) -> int:
    """Return how many rows a tensor lacks to a multiple of `align`."""
    return -len(tensor) % align


def filled_up(tensor: Tensor, align: int) -> Tensor:
    """Return a tensor with rows of zeros below, up to a multiple of `align`; itself where there are none."""
    missing = missing_rows(tensor, align)
    return tensor if not missing else torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


def _sum_chunks(
    states: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    words: int,
    how: _Chunks,
    factors: Tensor,
    gradients: list[Tensor | None] | None,
) -> Tensor:
    """Return the sums, and add to the gradients of states, weight and bias those that are not None."""
    total = torch.zeros_like(factors)
    for number, start in enumerate(range(0, len(states), how.size)):
        rows = states[start : start + how.size]
        logits = rows.detach() if weight is None else F.linear(rows, weight, bias)
        if gradients is None:
            total += how.loss(logits[:, :words], number)
            continue
        sums, logits_gradient = _differentiated(logits, words, number, how, factors)
        total += sums
        states_gradient, weight_gradient, bias_gradient = gradients
        if states_gradient is not None:
            states_gradient[start : start + how.size] = logits_gradient if weight is None else logits_gradient @ weight
        if weight_gradient is not None:
            _add_product(weight_gradient, logits_gradient.t(), rows)
        if bias_gradient is not None:
            bias_gradient += logits_gradient.sum(0)
    return total


def _differentiated(logits: Tensor, words: int, number: int, how: _Chunks, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a chunk's sums and the gradient of its logits; further columns than `words` are 0, and their gradient."""
    if how.in_place is not None and (sums := how.in_place(logits[:, :words], number, factors)) is not None:
        return sums, logits
    with torch.enable_grad():
        sums = how.loss(logits.requires_grad_()[:, :words], number)
        (gradient,) = torch.autograd.grad((sums * factors).sum(), logits)
    return sums.detach(), gradient


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left · right to `total`, in the precision of `total`."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
