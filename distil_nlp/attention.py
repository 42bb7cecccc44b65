"""Attention as queries and keys: distributions before dropout, in fp32, and sums over them block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(student, teacher, chosen) → sum, of log-probabilities such as `attention_kl` takes."""

_BLOCK_BYTES = {"cpu": 2**22, "gpu": 2**28}
"""Of one model's distributions in fp32: small enough for a processor's cache, large enough to fill a GPU."""


@dataclass(frozen=True)
class QueriesKeys:
    """What a layer's attention distributions are made of.

    Attributes:
        query, key: (batch, heads, seq, head width).
        scaling, mask: see `attention_log_probabilities`.
        value: as `query`, where it was asked for.
    """

    query: Tensor
    key: Tensor
    scaling: float
    mask: Tensor | None = None
    value: Tensor | None = None

    def log_probabilities(self) -> Tensor:
        """(batch, heads, seq, seq), in fp32."""
        return attention_log_probabilities(self.query, self.key, self.scaling, self.mask)

    def part(self, sequences: slice, queries: slice) -> QueriesKeys:
        """Some queries of some sequences, with all keys."""
        mask = self.mask
        if mask is not None:
            mask = mask[sequences if len(mask) > 1 else slice(None)]
            mask = mask[:, :, queries if mask.shape[2] > 1 else slice(None)]
        return QueriesKeys(self.query[sequences, :, queries], self.key[sequences], self.scaling, mask)


@dataclass(frozen=True)
class Probabilities:
    """A layer's attention distributions where nothing smaller can be had: `whole`, (batch, heads, seq, seq)."""

    whole: Tensor

    def log_probabilities(self) -> Tensor:
        """In fp32; probability 0 becomes a finite number, so that 0 · log 0 is 0."""
        return self.whole.float().clamp_min(torch.finfo(torch.float32).tiny).log()


Attention = QueriesKeys | Probabilities

for _kind in (QueriesKeys, Probabilities):
    torch.export.register_dataclass(_kind)  # so that what wraps a model finds the tensors in its output


def attention_sum(loss: Loss, student: Attention, teacher: Attention, chosen: Tensor, average: bool = False) -> Tensor:
    """Σ over the chosen queries of a loss between two layers' attention.

    From queries and keys a (batch, heads, seq, seq) tensor is never whole: it goes block by block, the gradient of a
    block is taken in the forward, where its distributions are at hand, and only that of queries and keys is kept. It
    can be differentiated once.

    Args:
        loss: such as `attention_kl`.
        student, teacher: with equal numbers of sequences and tokens.
        chosen: (batch, seq), 1 for queries that count and 0 for the others, such as padding.
        average: compare means over heads, for unequal numbers of them.

    Raises:
        ValueError: if the heads differ and are not averaged.
    """
    if isinstance(student, Probabilities) or isinstance(teacher, Probabilities):
        return loss(_maps(student, average), _maps(teacher, average), chosen)
    return _BlockSum.apply(student.query, student.key, student, teacher, chosen, loss, average, torch.is_grad_enabled())


class _BlockSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, student, teacher, chosen, loss, average, has_graph):
        ctx.gradients = None
        if has_graph and any(ctx.needs_input_grad[:2]):
            ctx.gradients = [torch.zeros_like(one, dtype=torch.float32) for one in (query, key)]
        total = query.new_zeros((), dtype=torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            for sequences, queries in _blocks(query, max(query.shape[1], teacher.query.shape[1])):
                ours, theirs = (one.part(sequences, queries) for one in (student, teacher))
                target, counted = _maps(theirs, average), chosen[sequences, queries]
                if ctx.gradients is None:
                    total += loss(_maps(ours, average), target, counted)
                    continue
                with torch.enable_grad():
                    leaves = [one.detach().float().requires_grad_() for one in (ours.query, ours.key)]
                    value = loss(_maps(QueriesKeys(*leaves, ours.scaling, ours.mask), average), target, counted)
                    slopes = torch.autograd.grad(value, leaves)
                total += value.detach()
                ctx.gradients[0][sequences, :, queries] = slopes[0]
                ctx.gradients[1][sequences] += slopes[1]
        ctx.dtypes = query.dtype, key.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        if ctx.gradients is None:
            raise RuntimeError("expected one backward through attention_sum / got a second / its gradients are spent")
        gradients, ctx.gradients = ctx.gradients, None
        done = [one.mul_(slope).to(dtype) for one, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return (*done, None, None, None, None, None, None)


def _maps(seen: Attention, average: bool) -> Tensor:
    found = seen.log_probabilities()
    return average_heads(found) if average else found


def _blocks(query: Tensor, heads: int) -> Iterator[tuple[slice, slice]]:
    """(sequences, queries) of blocks of about `_BLOCK_BYTES`: whole sequences, or runs of queries of one."""
    batch, _, length, _ = query.shape
    per_query = 4 * heads * length
    fit = max(_BLOCK_BYTES["cpu" if query.device.type == "cpu" else "gpu"] // per_query, 1)
    sequences, queries = max(fit // max(length, 1), 1), min(fit, length)
    for first in range(0, batch, sequences):
        for start in range(0, length, queries):
            yield slice(first, first + sequences), slice(start, start + queries)


def attention_log_probabilities(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """log softmax(scaling · query keyᵀ) without dropout, (batch, heads, seq, seq), in fp32.

    Keys that may not be seen get a finite −1.7e38, so that their probability is exactly 0 and
    0 · log 0 never becomes NaN.

    Args:
        query, key: (batch, heads, seq, head width).
        scaling: the model's own factor, usually 1 / √(head width).
        mask: which keys may be seen. Boolean (True = visible), or float to be added to the scores;
            broadcast to (batch, heads, seq, seq).
    """
    scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * scaling
    if mask is None:
        return scores.log_softmax(-1)
    visible = mask
    if mask.dtype != torch.bool:
        visible = mask > torch.finfo(mask.dtype).min / 2
        scores = scores + mask.masked_fill(~visible, 0).float()
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min / 2).log_softmax(-1)


def average_heads(log_probabilities: Tensor) -> Tensor:
    """The log of the mean distribution over heads, (batch, 1, seq, seq): for unequal numbers of heads."""
    heads = log_probabilities.shape[1]
    return torch.logsumexp(log_probabilities, dim=1, keepdim=True) - math.log(heads)
