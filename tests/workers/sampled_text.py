"""A process of two, which trains with `replaced_tokens` and writes its curve and sums of all trained weights."""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.helpers.training import curve
from tests.training.test_sampled_text import NAME, three_steps

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    trained = three_steps(folder / "run", 3)
    parameters = dict(trained.accelerator.unwrap_model(trained.model).named_parameters())
    found = {
        "world_size": trained.args.world_size,
        "wrapper": type(trained.model_wrapped).__name__,
        "curve": curve(trained, NAME),
        "sums": {name: float(weight.detach().double().abs().sum()) for name, weight in parameters.items()},
    }
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    del trained
    gc.collect()  # trainers are in reference cycles, which hold the connection
    dist.destroy_process_group()
