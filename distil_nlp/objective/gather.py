"""Rows of all processes together, for terms on how rows lie to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

ROWS_PER_PROCESS = "of_processes"
"""In a batch: row set → how many rows of it each process has at once, by rank. Not there where a process is alone."""


def gather_rows(rows: Tensor, name: str, batch: Mapping[str, Any]) -> Tensor:
    """(rows, width) of a row set as (rows of all processes, width), in the order of their ranks and in fp32; as they
    are where the batch says nothing of others. Gradients flow back to the process that a row is of, from all."""
    sizes: Sequence[int] | None = batch.get(ROWS_PER_PROCESS, {}).get(name)
    if sizes is None or max(sizes) == 0:
        return rows
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    padded = F.pad(rows, (0, 0, 0, max(sizes) - len(rows))).contiguous()
    return torch.cat([one[:size] for one, size in zip(all_gather(padded), sizes, strict=True)])
