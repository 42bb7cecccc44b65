"""A process of two, which runs cases and writes the gradients and batches of their steps."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.helpers.worker import end
from tests.training.test_exactness import Case, run

COLUMNS = ("input_ids", "token_type_ids", "attention_mask", "labels", "is_allowed", "rows")

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for i, fields in enumerate(json.loads((folder / "cases.json").read_text())):
        made, steps = run(Case(**fields | {"lengths": tuple(fields["lengths"])}), folder / f"run-{i}")
        assert (made.args.world_size, type(made.model_wrapped).__name__) == (2, "DistributedDataParallel")
        batches = [[{k: v for k, v in batch.items() if k in COLUMNS} for batch in step] for step in steps.batches]
        torch.save({"gradients": steps.gradients, "batches": batches}, folder / f"{i}-{dist.get_rank()}.pt")
    end()
