"""A process of two, which trains with averaged weights, and again from a checkpoint; writes both averages."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.helpers.worker import end
from tests.training.test_ema import new

if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    run = new(place / "run")
    run.train()
    resumed = new(place / "run")
    resumed.train(resume_from_checkpoint=str(place / "run" / "checkpoint-3"))
    found = {"average": run.model.state_dict(), "resumed": resumed.model.state_dict()}
    torch.save(found, place / f"{dist.get_rank()}.pt")
    end()
