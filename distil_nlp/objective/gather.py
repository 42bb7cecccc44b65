"""Gathering of rows from all processes, for terms on relations between samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

ROWS_PER_PROCESS = "of_processes"
"""Key of a batch: row set → its number of rows in each process, by rank. Absent in a run of a single process."""


def gather_rows(rows: Tensor, name: str, batch: Mapping[str, Any]) -> Tensor:
    """Gather (rows, width) of a row set into (rows of all processes, width), in fp32 and in the order of the ranks.

    The rows are returned as they are if the batch has no sizes of other processes. Gradients from all processes flow
    back to the process that owns a row.
    """
    sizes: Sequence[int] | None = batch.get(ROWS_PER_PROCESS, {}).get(name)
    if sizes is None or max(sizes) == 0:
        return rows
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    padded = F.pad(rows, (0, 0, 0, max(sizes) - len(rows))).contiguous()
    return torch.cat([part[:size] for part, size in zip(all_gather(padded), sizes, strict=True)])
