"""What a step costs at least: its useful arithmetic, and how fast the machine multiplies matrices of its shapes."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.benchmark import timer

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import Workload, WorkloadSize

MatmulShape = tuple[int, int, int]
"""(m, k, n) of a product (m, k) · (k, n)."""


def step_flops(work: Workload, head_rows: int) -> float:
    """Useful floating-point operations of a step: the teacher's forward, and of the student forward and backward, which
    takes twice as many; matrix products only, 2 to a multiply-add, the vocabulary's on `head_rows` tokens."""
    student = WorkloadSize(work.size.layers // 2, work.size.width, work.size.heads, work.size.inner, work.size.words)
    return sum(
        times * (work.tokens * _encoder_flops(size, work.length) + head_rows * _head_flops(size))
        for size, times in ((work.size, 1), (student, 3))
    )


def _encoder_flops(size: WorkloadSize, length: int) -> float:
    """Of a token: four square projections, two of the feed-forward layer, scores and their sums over all keys."""
    products = 4 * size.width**2 + 2 * size.width * size.inner + 2 * length * size.width
    return 2 * size.layers * products


def _head_flops(size: WorkloadSize) -> float:
    return 2 * (size.width**2 + size.width * size.words)


def step_shapes(work: Workload, head_rows: int) -> list[MatmulShape]:
    """The products that a step is made of: forward, and the two of each backward."""
    size = work.size
    forward = [(work.tokens, size.width, size.width), (work.tokens, size.width, size.inner)]
    forward += [(work.tokens, size.inner, size.width), (head_rows, size.width, size.words)]
    return list(dict.fromkeys(one for m, k, n in forward for one in ((m, k, n), (m, n, k), (k, m, n))))


def run_matmuls(turns: StepGate, work: Workload, head_rows: int, repeats: int = 5) -> None:
    """Each turn multiplies every shape some times and tells its best rate so far, in GFLOP/s."""
    dtype = torch.bfloat16 if work.bf16 else torch.float32
    shapes = step_shapes(work, head_rows)
    pairs = [
        (torch.randn(m, k, device=work.device, dtype=dtype), torch.randn(k, n, device=work.device, dtype=dtype))
        for m, k, n in shapes
    ]
    rates: dict[str, list[float]] = {"·".join(map(str, shape)): [] for shape in shapes}
    turns()
    while True:
        for (m, k, n), pair, found in zip(shapes, pairs, rates.values(), strict=True):
            for _ in range(repeats):
                begin = timer()
                torch.mm(*pair)
                found.append(2 * m * k * n / (timer() - begin) / 1e9)
        turns(gflops={name: round(float(np.median(found[repeats:] or found)), 1) for name, found in rates.items()})
