"""The Triton kernels of `residual_norm.py`: dropout, residual sum and layer norm of a row, forwards and backwards.

A program has one row in the forward, and every so many rows in the backward, where it sums the gradients of weight and
bias. All arithmetic is in fp32. What is dropped is drawn by Philox from a seed and the place of an element, and drawn
again in the backward, so that no mask is in memory.
"""

import triton
import triton.language as tl


@triton.jit
def normalise(
    states, residual, weight, bias, seed, out, units, inverses, width, kept_share, epsilon,
    DROPS: tl.constexpr, KEEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write LayerNorm(dropout(states) + residual) of a row; and for a backward its normalised sum and 1/σ.

    Args:
        states, residual, out, units: (rows, width), contiguous, each of a dtype of its own.
        weight, bias: (width,).
        seed: (1,) int64.
        inverses: (rows,) fp32.
        width: columns.
        kept_share: 1 − the probability of dropout.
        epsilon: added to the variance.
        DROPS: whether there is dropout.
        KEEPS: whether there is a backward.
        BLOCK: power of 2 ≥ width.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_inside = columns < width
    places = row * width + columns
    total = tl.load(states + places, mask=is_inside, other=0.0).to(tl.float32)
    if DROPS:
        is_kept = tl.rand(tl.load(seed), places.to(tl.uint32)) < kept_share
        total = tl.where(is_kept, total / kept_share, 0.0)
    total += tl.load(residual + places, mask=is_inside, other=0.0).to(tl.float32)
    mean = tl.sum(total, 0) / width
    centred = tl.where(is_inside, total - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + epsilon)
    factor = tl.load(weight + columns, mask=is_inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=is_inside, other=0.0).to(tl.float32)
    unit = centred * inverse
    tl.store(out + places, (unit * factor + shift).to(out.dtype.element_ty), mask=is_inside)
    if KEEPS:
        tl.store(units + places, unit.to(units.dtype.element_ty), mask=is_inside)
        tl.store(inverses + row, inverse)


@triton.jit
def normalise_backward(
    gradient, units, weight, seed, inverses, of_states, of_residual, of_weight, of_bias,
    rows, width, kept_share, DROPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of states and residual of every so many rows, and the sums of those of weight and bias.

    Args:
        gradient, units, of_states, of_residual: (rows, width), contiguous.
        weight: (width,).
        seed, inverses: of the forward.
        of_weight, of_bias: (programs, width) fp32, of the rows of each program.
        rows, width: of the states.
        kept_share, DROPS, BLOCK: of the forward.
    """
    first, programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, BLOCK)
    is_inside = columns < width
    factor = tl.load(weight + columns, mask=is_inside, other=0.0).to(tl.float32)
    sum_weight = tl.zeros([BLOCK], dtype=tl.float32)
    sum_bias = tl.zeros([BLOCK], dtype=tl.float32)
    for number in range(first, rows, programs):
        row = tl.cast(number, tl.int64)
        places = row * width + columns
        own = tl.load(gradient + places, mask=is_inside, other=0.0).to(tl.float32)
        unit = tl.load(units + places, mask=is_inside, other=0.0).to(tl.float32)
        sum_weight += own * unit
        sum_bias += own
        scaled = own * factor
        along = tl.sum(scaled * unit, 0) / width
        found = (scaled - tl.sum(scaled, 0) / width - unit * along) * tl.load(inverses + row)
        tl.store(of_residual + places, found.to(of_residual.dtype.element_ty), mask=is_inside)
        if DROPS:
            is_kept = tl.rand(tl.load(seed), places.to(tl.uint32)) < kept_share
            found = tl.where(is_kept, found / kept_share, 0.0)
        tl.store(of_states + places, found.to(of_states.dtype.element_ty), mask=is_inside)
    tl.store(of_weight + first * width + columns, sum_weight, mask=is_inside)
    tl.store(of_bias + first * width + columns, sum_bias, mask=is_inside)
