"""Accelerators by name, with their peak rate, memory and power as their makers state them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from distil_nlp.errors import UserError, listed, quoted

UTILIZATION = 0.22
"""Share of the peak that training is taken to reach.

One H100 did 222 of 989 TFLOP/s: BERT-base to 6 layers, 64 × 512 tokens a micro-batch, 15 % of them masked, bf16,
27 November 2026 (docs/planning.md). Losses on all tokens reached 9 %, small micro-batches reach less. It was not
measured on other accelerators."""


@dataclass(frozen=True)
class Accelerator:
    """An accelerator, as its maker states it.

    Attributes:
        title: its name.
        peak_flops: operations a second of dense matrix products in bf16, or in fp16 where it has no bf16.
        memory: bytes.
        watts: most power that it draws, without the machine around it.
        source: the document that says so.
    """

    title: str
    peak_flops: float
    memory: float
    watts: float
    source: str


ACCELERATORS = {
    "h100": Accelerator("NVIDIA H100 SXM", 989e12, 80e9, 700, "NVIDIA H100 Tensor Core GPU datasheet"),
    "h200": Accelerator("NVIDIA H200 SXM", 989e12, 141e9, 700, "NVIDIA H200 Tensor Core GPU datasheet"),
    "a100": Accelerator("NVIDIA A100 80GB SXM", 312e12, 80e9, 400, "NVIDIA A100 Tensor Core GPU datasheet"),
    "l40s": Accelerator("NVIDIA L40S", 362e12, 48e9, 350, "NVIDIA L40S datasheet"),
    "l4": Accelerator("NVIDIA L4", 121e12, 24e9, 72, "NVIDIA L4 datasheet, half of its figure with sparsity"),
    "rtx4090": Accelerator("NVIDIA GeForce RTX 4090", 165e12, 24e9, 450, "NVIDIA Ada GPU architecture whitepaper"),
    "v100": Accelerator("NVIDIA V100 SXM2", 125e12, 32e9, 300, "NVIDIA V100 datasheet; fp16"),
    "t4": Accelerator("NVIDIA T4", 65e12, 16e9, 70, "NVIDIA T4 datasheet; fp16"),
}
"""Name on the command line → accelerator."""


def accelerator_named(name: str) -> Accelerator:
    """Return an accelerator.

    Raises:
        UserError: if there is none of that name.
    """
    found = ACCELERATORS.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), ACCELERATORS, 1)
        fix = f"did you mean {near[0]}?" if near else "name the most similar one, and its share with --utilization"
        raise UserError("--accelerator", f"one of {listed(ACCELERATORS, 50)}", quoted(name), fix=fix)
    return found
