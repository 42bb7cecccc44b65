"""Numerics that formulas share: products in fp32, and directions of vectors that may be 0."""

import torch
from torch import Tensor

TINY = 1e-12


def at_least_fp32(x: Tensor) -> Tensor:
    """Return x in fp32, or in float64 if it has that precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def matmul_fp32(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product x y, in fp32 (float64 for float64) whatever autocast is on."""
    with torch.autocast(x.device.type, enabled=False):
        return at_least_fp32(x) @ at_least_fp32(y)


def normalize(x: Tensor) -> Tensor:
    """Return x / ‖x‖ along the last dimension; 0, and no gradient, where ‖x‖ is below 1e-6."""
    x = at_least_fp32(x)
    squared = x.square().sum(-1, keepdim=True)
    is_zero = squared < TINY
    return x * squared.masked_fill(is_zero, 1).rsqrt().masked_fill(is_zero, 0)


def check_same_rows(student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError unless both are (rows, width) with the same number of rows; widths are free."""
    if student.dim() != 2 or teacher.dim() != 2 or len(student) != len(teacher):
        raise ValueError(
            f"expected (rows, width) with the same rows on both sides / got student {tuple(student.shape)}, "
            f"teacher {tuple(teacher.shape)}"
        )
