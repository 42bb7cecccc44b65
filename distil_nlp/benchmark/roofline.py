"""The lower bound of a step's time: its useful operations, at the rate at which the machine multiplies matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.benchmark import timer

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import Workload, WorkloadSize

MatmulShape = tuple[int, int, int]
"""(m, k, n) of a product (m, k) · (k, n)."""


def step_flops(work: Workload, head_rows: int) -> float:
    """Return the useful floating-point operations of a step: the teacher's forward, the student's forward and backward.

    A backward takes twice as many as its forward. Matrix products only, 2 operations to a multiply-add, those of the
    vocabulary on `head_rows` tokens.
    """
    student = WorkloadSize(work.size.layers // 2, work.size.width, work.size.heads, work.size.inner, work.size.words)
    return sum(
        passes * (work.tokens * _encoder_flops(size, work.length) + head_rows * _head_flops(size))
        for size, passes in ((work.size, 1), (student, 3))
    )


def _encoder_flops(size: WorkloadSize, length: int) -> float:
    """Return the operations of a token: four square projections, two of the feed-forward layer, attention scores and
    their sums over all keys.
    """
    products = 4 * size.width**2 + 2 * size.width * size.inner + 2 * length * size.width
    return 2 * size.layers * products


def _head_flops(size: WorkloadSize) -> float:
    return 2 * (size.width**2 + size.width * size.words)


def step_shapes(work: Workload, head_rows: int) -> list[MatmulShape]:
    """Return the shapes of a step's products: each forward product, and the two of its backward."""
    size = work.size
    forward = [(work.tokens, size.width, size.width), (work.tokens, size.width, size.inner)]
    forward += [(work.tokens, size.inner, size.width), (head_rows, size.width, size.words)]
    return list(dict.fromkeys(shape for m, k, n in forward for shape in ((m, k, n), (m, n, k), (k, m, n))))


def run_matmuls(gate: StepGate, work: Workload, head_rows: int, repeats: int = 5) -> None:
    """Multiply every shape some times in each turn, and report the median rate of each so far, in GFLOP/s."""
    dtype = torch.bfloat16 if work.bf16 else torch.float32
    shapes = step_shapes(work, head_rows)
    pairs = [
        (torch.randn(m, k, device=work.device, dtype=dtype), torch.randn(k, n, device=work.device, dtype=dtype))
        for m, k, n in shapes
    ]
    rates: dict[str, list[float]] = {"·".join(map(str, shape)): [] for shape in shapes}
    gate()
    while True:
        for (m, k, n), pair, measured in zip(shapes, pairs, rates.values(), strict=True):
            for _ in range(repeats):
                start = timer()
                torch.mm(*pair)
                measured.append(2 * m * k * n / (timer() - start) / 1e9)
        gate(gflops={name: round(float(np.median(values[repeats:] or values)), 1) for name, values in rates.items()})
