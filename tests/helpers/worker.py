"""One of the processes that torchrun starts: its work, its results, and its end."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def write_results(train: Callable[..., Any]) -> None:
    """Train in a folder beside the file of the first argument, with the keywords of the second; write what it returns.

    The file is JSON, of the first process.
    """
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    results = train(out.parent / "run", **json.loads(sys.argv[2]))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(results))
    end()


def end() -> None:
    """End the connection of the processes, after the last reference to a trainer is gone."""
    gc.collect()  # trainers are in reference cycles, which hold the connection
    dist.destroy_process_group()
