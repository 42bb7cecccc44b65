"""One process of two: a step with all terms of each kind of task; writes gradients and the terms' values."""

import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.test_exactness import Steps
from tests.test_terms import KINDS, ROWS, all_of, data, models
from tests.training import trainer


def step(kind: str, out: Path) -> None:
    steps = Steps()
    arguments = {"per_device_train_batch_size": ROWS // 2, "max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0}
    run = trainer(out / "run", *models(kind), all_of(kind), kind=kind, rows=data(kind), callbacks=[steps], **arguments)
    run.train()
    if dist.get_rank() == 0:
        wrapper = type(run.model_wrapped).__name__
        found = {"gradient": steps.gradients[0], "values": run.last_terms, "wrapper": wrapper}
        torch.save(found, out / f"{kind}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind in KINDS:
        step(kind, Path(sys.argv[1]))
    gc.collect()  # trainers hold themselves, and with them the connection
    dist.destroy_process_group()
