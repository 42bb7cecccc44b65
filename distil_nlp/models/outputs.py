"""Logits of a model's output, whatever its head calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def output_logits(output: Any) -> Tensor:
    """Return the logits of a model's output; for question answering those of start and end, (batch, seq, 2)."""
    logits = getattr(output, "logits", None)
    return torch.stack([output.start_logits, output.end_logits], -1) if logits is None else logits
