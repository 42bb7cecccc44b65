"""A process of two that takes steps on queries and their documents, and writes gradients and batches."""

import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.training.test_ranking import steps_of

KEPT = ("input_ids", "token_type_ids", "labels", "rows")

if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    steps = steps_of(out.parent / "two", 5)
    batches = [[{name: batch[name] for name in KEPT} for batch in step] for step in steps.batches]
    torch.save({"gradients": steps.gradients, "batches": batches}, out.with_suffix(f".{dist.get_rank()}"))
    gc.collect()  # trainers are in reference cycles, which hold the connection
    dist.destroy_process_group()
