"""KL between attention distributions of two models by tiles, without a (seq, seq) tensor of either.

torch's way goes by blocks that fit a cache or fill a GPU (`distil_nlp.signals.attention`), each read and written some
ten times in fp32. The kernels keep a tile in registers, and compute it again for the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from distil_nlp.kernels.fallback import TritonKernel, is_interpreted

_TILE = 64
_LEAST_WIDTH = 16
"""Smallest width of a product on tensor cores."""


class AttentionKernel(TritonKernel):
    """The kernels, as long as they work."""

    what = "kernel of the attention maps"

    def divergence(self, student: Any, teacher: Any, chosen: Tensor) -> Tensor | None:
        """Return Σ over the chosen queries of the mean over heads of KL(teacher ‖ student); it can be differentiated.

        Args:
            student, teacher: `QueriesKeys` of as many sequences, heads and tokens.
            chosen: (batch, seq), 1 for queries that count.

        Returns:
            None where the kernels do not know such attention, or do not work.

        Raises:
            UserError: if they are required, and do not work.
        """
        masks = _visible(student.mask), _visible(teacher.mask)
        if student.shape != teacher.shape or student.shape[2] != student.shape[3] or "unknown" in masks:
            return None
        scaled = student.scaling, teacher.scaling
        tensors = student.query, student.key, teacher.query.detach(), teacher.key.detach()
        return self.attempt(lambda: _Divergence.apply(*tensors, masks, chosen, *scaled, torch.is_grad_enabled()))


_IN_USE: ContextVar[AttentionKernel | None] = ContextVar("attention_kernel", default=None)


@contextmanager
def using(kernel: AttentionKernel | None) -> Iterator[None]:
    """Within this context, terms on attention maps ask this kernel first."""
    token = _IN_USE.set(kernel)
    try:
        yield
    finally:
        _IN_USE.reset(token)


def kernel_in_use() -> AttentionKernel | None:
    """Return the kernel of the context that this is called in; None where torch does the work."""
    return _IN_USE.get()


def _visible(mask: Any) -> Any:
    """Return the visible keys of each head alike, (batch or 1, queries or 1, seq) of booleans; None for all.

    `unknown` for a mask of another kind: one that is added to the scores, or that differs from head to head.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool or mask.dim() != 4 or (mask.shape[1] > 1 and mask.stride(1) != 0):
        return "unknown"
    return mask[:, 0]


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, teacher_query, teacher_key, masks, chosen, scaling, teacher_scaling, has_graph):
        launch = _Launch(query, key, teacher_query, teacher_key, masks, chosen, scaling, teacher_scaling)
        losses = launch.losses()
        ctx.gradients = None
        if has_graph and any(ctx.needs_input_grad[:2]):
            ctx.gradients = launch.gradients()
        ctx.dtypes = query.dtype, key.dtype
        return losses.sum() / query.shape[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, sum_gradient):
        if ctx.gradients is None:
            raise RuntimeError("expected one backward through the kernel / got a second / its gradients are spent")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (one.mul_(sum_gradient).to(dtype) for one, dtype in zip(gradients, ctx.dtypes, strict=True))
        return (*scaled, *[None] * 7)


class _Launch:
    """The kernels' arguments for one pair of layers."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        teacher_query: Tensor,
        teacher_key: Tensor,
        masks: tuple[Tensor | None, Tensor | None],
        chosen: Tensor,
        scaling: float,
        teacher_scaling: float,
    ):
        tensors = [_with_whole_rows(tensor) for tensor in (query, key, teacher_query, teacher_key)]
        if tensors[0].dtype != tensors[2].dtype:
            tensors[2:] = [tensor.to(tensors[0].dtype) for tensor in tensors[2:]]
        self.batch, self.heads, self.length, self.width = query.shape
        self.query = query
        shape = self.batch, self.length, self.length
        seen = [tensors[0] if mask is None else mask.expand(shape).view(torch.uint8) for mask in masks]
        self.sums = [torch.empty(query.shape[:3], dtype=torch.float32, device=query.device) for _ in range(2)]
        self.before = (*tensors, *seen, chosen.contiguous())
        strides = [stride for tensor in [*tensors, *seen] for stride in tensor.stride()[:3]]
        self.after = (self.heads, self.length, float(scaling), float(teacher_scaling), *strides)
        teacher_width = teacher_query.shape[-1]
        precision = "ieee" if query.dtype == torch.float32 else "tf32"  # the latter has no meaning for bf16 and fp16
        self.options = {
            "STUDENT": self.width, "STUDENT_PADDED": _padded(self.width),
            "TEACHER": teacher_width, "TEACHER_PADDED": _padded(teacher_width),
            "HAS_MASK": masks[0] is not None, "TEACHER_HAS_MASK": masks[1] is not None,
            "PRECISION": "widened" if is_interpreted() else precision, "ROWS": _TILE, "COLUMNS": _TILE,
        }  # fmt: skip

    @property
    def _grid(self) -> tuple[int, int, int]:
        return -(-self.length // _TILE), self.heads, self.batch

    def losses(self) -> Tensor:
        """Return the KL of each query, (batch, heads, seq), and keep the sums that the gradients need."""
        from distil_nlp.kernels.attention_triton import divergence

        losses = torch.empty_like(self.sums[0])
        divergence[self._grid](*self.before, losses, *self.sums, *self.after, **self.options)
        return losses

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the student's queries and keys in fp32, of the mean over heads."""
        from distil_nlp.kernels.attention_triton import key_gradient, query_gradient

        found = []
        for kernel in (query_gradient, key_gradient):
            gradient = torch.empty(self.query.shape, dtype=torch.float32, device=self.query.device)
            kernel[self._grid](*self.before, gradient, *self.sums, *self.after, **self.options)
            found.append(gradient.div_(self.heads))
        return found


def _with_whole_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _padded(width: int) -> int:
    import triton

    return max(triton.next_power_of_2(width), _LEAST_WIDTH)
