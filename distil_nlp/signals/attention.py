"""Attention as queries and keys: scores and distributions in fp32, before dropout, and sums over them by blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(student, teacher, chosen) → sum, of log-probabilities such as `attention_kl` takes, or of scores."""

_BLOCK_BYTES = {"cpu": 2**22, "gpu": 2**28}
"""Size of a block of one model's distributions in fp32: fits a processor's cache, or is large enough to fill a GPU."""


@dataclass(frozen=True)
class QueriesKeys:
    """Queries and keys of a layer, from which its attention distributions are computed.

    Attributes:
        query, key: (batch, heads, seq, head width).
        scaling, mask: see `attention_log_probabilities`.
        value: of the shape of `query`, if it was requested.
    """

    query: Tensor
    key: Tensor
    scaling: float
    mask: Tensor | None = None
    value: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, heads, queries, keys)."""
        return (*self.query.shape[:3], self.key.shape[2])

    def log_probabilities(self) -> Tensor:
        """Return the log-probabilities, (batch, heads, seq, seq), in fp32."""
        return attention_log_probabilities(self.query, self.key, self.scaling, self.mask)

    def scores(self) -> Tensor:
        """Return the input of the softmax, (batch, heads, seq, seq), in fp32; −inf for masked keys."""
        scores, visible = _scores(self.query, self.key, self.scaling, self.mask)
        return scores if visible is None else scores.masked_fill(~visible, -math.inf)

    def part(self, sequences: slice, queries: slice) -> QueriesKeys:
        """Return some queries of some sequences, with all keys."""
        mask = self.mask
        if mask is not None:
            mask = mask[sequences if len(mask) > 1 else slice(None)]
            mask = mask[:, :, queries if mask.shape[2] > 1 else slice(None)]
        return QueriesKeys(self.query[sequences, :, queries], self.key[sequences], self.scaling, mask)


@dataclass(frozen=True)
class Probabilities:
    """A layer's attention distributions where queries and keys cannot be captured.

    Attributes:
        whole: probabilities, (batch, heads, seq, seq).
    """

    whole: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, heads, queries, keys)."""
        return tuple(self.whole.shape)

    def log_probabilities(self) -> Tensor:
        """Return the log-probabilities in fp32; that of 0 is a finite number, so that 0 · log 0 is 0."""
        return self.whole.float().clamp_min(torch.finfo(torch.float32).tiny).log()

    def scores(self) -> Tensor:
        """Raise ValueError: a softmax is invariant to a constant added to its scores, which cannot be recovered."""
        raise ValueError("expected queries and keys for attention scores / got probabilities, which do not tell them")


Attention = QueriesKeys | Probabilities

for _kind in (QueriesKeys, Probabilities):
    torch.export.register_dataclass(_kind)  # so that DDP and FSDP find the tensors in the output


def attention_sum(
    loss: Loss,
    student: Attention,
    teacher: Attention,
    chosen: Tensor,
    average: bool = False,
    scores: bool = False,
) -> Tensor:
    """Return Σ over the chosen queries of a loss between two layers' attention.

    With queries and keys, no whole (batch, heads, seq, seq) tensor is ever in memory: the sum goes block by block, the
    gradient of a block is taken in the forward, while its distributions are in memory, and only the gradient of queries
    and keys is kept. The result can be differentiated once.

    Args:
        loss: the loss of a block, such as `attention_kl`.
        student, teacher: attention with equal numbers of sequences and tokens.
        chosen: (batch, seq), 1 for queries that count and 0 for the others, such as padding.
        average: True to compare means over heads, for unequal numbers of heads.
        scores: True if the loss takes scores, −inf where a key is masked, instead of log-probabilities.

    Raises:
        ValueError: if the heads differ and are not averaged, or scores are requested of probabilities.
    """
    maps = partial(_maps, average=average, scores=scores)
    if isinstance(student, Probabilities) or isinstance(teacher, Probabilities):
        return loss(maps(student), maps(teacher), chosen)
    return _BlockSum.apply(student.query, student.key, student, teacher, chosen, loss, maps, torch.is_grad_enabled())


class _BlockSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, student, teacher, chosen, loss, maps, has_graph):
        ctx.gradients = None
        if has_graph and any(ctx.needs_input_grad[:2]):
            ctx.gradients = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in (query, key)]
        total = query.new_zeros((), dtype=torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            for sequences, queries in _blocks(query, max(query.shape[1], teacher.query.shape[1])):
                block = student.part(sequences, queries)
                target, block_chosen = maps(teacher.part(sequences, queries)), chosen[sequences, queries]
                if ctx.gradients is None:
                    total += loss(maps(block), target, block_chosen)
                    continue
                with torch.enable_grad():
                    leaves = [tensor.detach().float().requires_grad_() for tensor in (block.query, block.key)]
                    own = QueriesKeys(leaves[0], leaves[1], block.scaling, block.mask)
                    value = loss(maps(own), target, block_chosen)
                    query_gradient, key_gradient = torch.autograd.grad(value, leaves)
                total += value.detach()
                ctx.gradients[0][sequences, :, queries] = query_gradient
                ctx.gradients[1][sequences] += key_gradient
        ctx.dtypes = query.dtype, key.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, sum_gradient):
        if ctx.gradients is None:
            raise RuntimeError("expected one backward through attention_sum / got a second / its gradients are spent")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [gradient.mul_(sum_gradient).to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return (*scaled, None, None, None, None, None, None)


def _maps(attention: Attention, average: bool, scores: bool) -> Tensor:
    """Return scores or log-probabilities, averaged over heads if `average`."""
    if scores:
        maps = attention.scores()
        return maps.mean(1, keepdim=True) if average else maps
    maps = attention.log_probabilities()
    return average_heads(maps) if average else maps


def _blocks(query: Tensor, heads: int) -> Iterator[tuple[slice, slice]]:
    """Yield (sequences, queries) for blocks of about `_BLOCK_BYTES`: whole sequences, or some queries of a sequence."""
    batch, _, length, _ = query.shape
    per_query = 4 * heads * length
    capacity = max(_BLOCK_BYTES["cpu" if query.device.type == "cpu" else "gpu"] // per_query, 1)
    sequences, queries = max(capacity // max(length, 1), 1), min(capacity, length)
    for first in range(0, batch, sequences):
        for start in range(0, length, queries):
            yield slice(first, first + sequences), slice(start, start + queries)


def attention_log_probabilities(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Return log softmax(scaling · query keyᵀ) without dropout, (batch, heads, seq, seq), in fp32.

    Masked keys get a finite −1.7e38, so that their probability is exactly 0 and 0 · log 0 never becomes NaN.

    Args:
        query, key: (batch, heads, seq, head width).
        scaling: the model's own factor, usually 1 / √(head width).
        mask: the visible keys. Boolean (True = visible), or float to be added to the scores; broadcast to
            (batch, heads, seq, seq).
    """
    scores, visible = _scores(query, key, scaling, mask)
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min / 2)
    return scores.log_softmax(-1)


def _scores(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return (scaling · query keyᵀ plus a float mask, the visible keys as a boolean mask or None for all)."""
    scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * scaling
    if mask is None or mask.dtype == torch.bool:
        return scores, mask
    visible = mask > torch.finfo(mask.dtype).min / 2
    return scores + mask.masked_fill(~visible, 0).float(), visible


def average_heads(log_probabilities: Tensor) -> Tensor:
    """Return the log of the mean distribution over heads, (batch, 1, seq, seq), for unequal numbers of heads."""
    heads = log_probabilities.shape[1]
    return torch.logsumexp(log_probabilities, dim=1, keepdim=True) - math.log(heads)
