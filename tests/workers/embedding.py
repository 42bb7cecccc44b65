"""A process of two that takes steps on the vectors of texts, and writes their gradients and batches."""

import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.training.test_embedding import steps_of

if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    steps = steps_of(out.parent / "two", 4)
    batches = [[{"input_ids": batch["input_ids"]} for batch in step] for step in steps.batches]
    torch.save({"gradients": steps.gradients, "batches": batches}, out.with_suffix(f".{dist.get_rank()}"))
    gc.collect()  # trainers are in reference cycles, which hold the connection
    dist.destroy_process_group()
