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

    def scores(self) -> Tensor:
        """What the softmax is taken of, (batch, heads, seq, seq), in fp32; −inf for keys that may not be seen."""
        scores, visible = _scores(self.query, self.key, self.scaling, self.mask)
        return scores if visible is None else scores.masked_fill(~visible, -math.inf)

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

    def scores(self) -> Tensor:
        """Raises ValueError: a softmax forgets how large its scores were."""
        raise ValueError("expected queries and keys for attention scores / got probabilities, which do not tell them")


Attention = QueriesKeys | Probabilities

for _kind in (QueriesKeys, Probabilities):
    torch.export.register_dataclass(_kind)  # so that what wraps a model finds the tensors in its output


def attention_sum(
    loss: Loss,
    student: Attention,
    teacher: Attention,
    chosen: Tensor,
    average: bool = False,
    scores: bool = False,
) -> Tensor:
    """Σ over the chosen queries of a loss between two layers' attention.

    From queries and keys a (batch, heads, seq, seq) tensor is never whole: it goes block by block, the gradient of a
    block is taken in the forward, where its distributions are at hand, and only that of queries and keys is kept. It
    can be differentiated once.

    Args:
        loss: such as `attention_kl`.
        student, teacher: with equal numbers of sequences and tokens.
        chosen: (batch, seq), 1 for queries that count and 0 for the others, such as padding.
        average: compare means over heads, for unequal numbers of them.
        scores: the loss takes scores, −inf where a key may not be seen, instead of log-probabilities.

    Raises:
        ValueError: if the heads differ and are not averaged, or there are no scores to be had.
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
            ctx.gradients = [torch.zeros_like(one, dtype=torch.float32) for one in (query, key)]
        total = query.new_zeros((), dtype=torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            for sequences, queries in _blocks(query, max(query.shape[1], teacher.query.shape[1])):
                ours, theirs = (one.part(sequences, queries) for one in (student, teacher))
                target, counted = maps(theirs), chosen[sequences, queries]
                if ctx.gradients is None:
                    total += loss(maps(ours), target, counted)
                    continue
                with torch.enable_grad():
                    leaves = [one.detach().float().requires_grad_() for one in (ours.query, ours.key)]
                    value = loss(maps(QueriesKeys(*leaves, ours.scaling, ours.mask)), target, counted)
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


def _maps(seen: Attention, average: bool, scores: bool) -> Tensor:
    if scores:
        found = seen.scores()
        return found.mean(1, keepdim=True) if average else found
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
    scores, visible = _scores(query, key, scaling, mask)
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min / 2)
    return scores.log_softmax(-1)


def _scores(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(scaling · query keyᵀ and what the mask adds, which keys may be seen or None for all)."""
    scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * scaling
    if mask is None or mask.dtype == torch.bool:
        return scores, mask
    visible = mask > torch.finfo(mask.dtype).min / 2
    return scores + mask.masked_fill(~visible, 0).float(), visible


def average_heads(log_probabilities: Tensor) -> Tensor:
    """The log of the mean distribution over heads, (batch, 1, seq, seq): for unequal numbers of heads."""
    heads = log_probabilities.shape[1]
    return torch.logsumexp(log_probabilities, dim=1, keepdim=True) - math.log(heads)
