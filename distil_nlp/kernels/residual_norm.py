"""Dropout, residual sum and layer norm behind a linear layer, in one pass over memory.

In torch these are three operators, each of which reads and writes all states, and under autocast the norm's are in
fp32, which every linear layer after it casts back. The kernel reads states and residual once and writes what comes out
in the dtype of autocast. In such a run the residual stream has that precision, as it has for a model that is in bf16
throughout; sums and statistics are in fp32.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from distil_nlp.kernels.fallback import TritonKernel

_PROGRAMS = 512
"""Programs of a backward, at most: each has sums of its own, which torch adds up."""
_WIDEST = 16_384
"""Columns that a program holds."""


class ResidualNormKernel(TritonKernel):
    """The kernels, as long as they work."""

    what = "kernel of residual sums and layer norms"

    def __init__(self, is_required: bool = False):
        super().__init__(is_required)
        self._proven: set[Any] = set()

    def normalised(self, states: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: float) -> Tensor | None:
        """Return LayerNorm(dropout(states) + residual), in the dtype of autocast, or else of the residual.

        Args:
            states: (…, width), what a linear layer gives.
            residual: likewise.
            norm: with weight and bias, over the last dimension.
            dropout: probability, 0 for none.

        Returns:
            None where the kernels do not work, or do not know such states.

        Raises:
            UserError: in place of None, if the kernels are required, and do not work.
        """
        width, device = states.shape[-1], states.device.type
        if states.shape != residual.shape or tuple(norm.normalized_shape) != (width,) or width > _WIDEST:
            return None
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else residual.dtype
        key = width, states.dtype, residual.dtype, dtype, norm.weight.dtype, dropout > 0
        if key not in self._proven and not self.attempt(lambda: _prove(states, residual, norm, dropout, dtype)):
            return None
        self._proven.add(key)
        seed = torch.randint(2**31 - 1, (1,), device=states.device) if dropout else None
        return _ResidualNorm.apply(dropout, seed, norm.eps, dtype, states, residual, norm.weight, norm.bias)


def _prove(states: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: float, dtype: torch.dtype) -> bool:
    """Run forward and backward of one row, which raises whatever is raised where they cannot be compiled.

    It draws nothing, so that a resumed training drops what the whole one does. Real rows run outside `attempt`, since
    activation checkpointing ends a recomputation by an exception; its hooks on what is saved do not see these rows.
    """
    row = [one.detach().reshape(-1, one.shape[-1])[:1].requires_grad_() for one in (states, residual)]
    weights = [one.detach().requires_grad_() for one in (norm.weight, norm.bias)]
    seed = torch.zeros(1, dtype=torch.int64, device=states.device) if dropout else None
    with torch.enable_grad(), saved_tensors_hooks(lambda one: one, lambda one: one):
        _ResidualNorm.apply(dropout, seed, norm.eps, dtype, *row, *weights).sum().backward()
    return True


class FusedResidualNorms:
    """The kernel in place of each residual norm of models.

    A module is one if it has BERT's `dense`, `dropout` and `LayerNorm` and the forward of BERT's, as most families
    have. Where dropout or norm of it have hooks, torch does the work, and the hooks see theirs.

    Args:
        models: whose modules are changed, unless another trainer has changed them.
        kernel: for all of them.

    Attributes:
        modules: that were changed.
    """

    def __init__(self, models: list[nn.Module], kernel: ResidualNormKernel):
        found = (module for model in models for module in model.modules() if is_residual_norm(module))
        self.modules = [module for module in found if "forward" not in module.__dict__]
        for module in self.modules:
            module.__dict__["forward"] = partial(_forward, module, kernel)

    def remove(self) -> None:
        """Give the modules their own forwards back."""
        for module in self.modules:
            module.__dict__.pop("forward", None)
        self.modules = []


def is_residual_norm(module: nn.Module) -> bool:
    """Return whether a module computes LayerNorm(dropout(dense(x)) + residual), and is built as BERT's are."""
    dropout, norm = getattr(module, "dropout", None), getattr(module, "LayerNorm", None)
    if type(dropout) is not nn.Dropout or type(norm) is not nn.LayerNorm or not hasattr(module, "dense"):
        return False
    kind: Any = type(module)
    return norm.weight is not None and norm.bias is not None and _has_berts_forward(kind)


@cache
def _has_berts_forward(kind: Any) -> bool:
    try:
        return _code(kind.forward) == _code(_berts_forward)
    except (OSError, TypeError, SyntaxError):  # without source
        return False


def _code(function: Any) -> str:
    """Return what a function does, without its name, annotations and docstring."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    return repr([[one.arg for one in tree.args.args], [ast.dump(line) for line in body]])


def _berts_forward(self, hidden_states, input_tensor):
    hidden_states = self.dense(hidden_states)
    hidden_states = self.dropout(hidden_states)
    hidden_states = self.LayerNorm(hidden_states + input_tensor)
    return hidden_states


def _forward(module: Any, kernel: ResidualNormKernel, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    states, found = module.dense(hidden_states), None
    if not any(_has_hooks(one) for one in (module.dropout, module.LayerNorm)):
        dropout = module.dropout.p if module.training else 0.0
        found = kernel.normalised(states, input_tensor, module.LayerNorm, dropout) if dropout < 1 else None
    return module.LayerNorm(module.dropout(states) + input_tensor) if found is None else found


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dropout, seed, epsilon, dtype, states, residual, weight, bias):
        import triton

        from distil_nlp.kernels.residual_norm_triton import normalise

        width = states.shape[-1]
        states, residual = states.contiguous(), residual.contiguous()
        rows, has_backward = states.numel() // width, any(ctx.needs_input_grad)
        out = torch.empty(states.shape, dtype=dtype, device=states.device)
        units = torch.empty_like(out) if has_backward else out
        inverses = torch.empty(rows, dtype=torch.float32, device=states.device)
        seed = inverses if seed is None else seed
        block = triton.next_power_of_2(width)
        ctx.settings = dict(DROPS=dropout > 0, BLOCK=block, num_warps=min(max(block // 256, 1), 8))
        if rows:
            normalise[(rows,)](
                states, residual, weight, bias, seed, out, units, inverses, width, 1.0 - dropout, epsilon,
                KEEPS=has_backward, **ctx.settings,
            )  # fmt: skip
        if has_backward:
            ctx.save_for_backward(units, weight, seed, inverses)
            ctx.dtypes, ctx.kept_share = (states.dtype, residual.dtype, bias.dtype), 1.0 - dropout
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        from distil_nlp.kernels.residual_norm_triton import normalise_backward

        units, weight, seed, inverses = ctx.saved_tensors
        gradient, width, rows = gradient.contiguous(), units.shape[-1], inverses.numel()
        of_states, of_residual = (torch.empty(units.shape, dtype=one, device=units.device) for one in ctx.dtypes[:2])
        programs = min(rows, _PROGRAMS)
        sums = [torch.empty(programs, width, dtype=torch.float32, device=units.device) for _ in range(2)]
        if rows:
            normalise_backward[(programs,)](
                gradient, units, weight, seed, inverses, of_states, of_residual, *sums,
                rows, width, ctx.kept_share, **ctx.settings,
            )  # fmt: skip
        of_weight, of_bias = (
            one.sum(0).to(like) for one, like in zip(sums, (weight.dtype, ctx.dtypes[2]), strict=True)
        )
        return None, None, None, None, of_states, of_residual, of_weight, of_bias
