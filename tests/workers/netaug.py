"""A process of two, which trains with network augmentation and writes curves and sums of all trained weights."""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.helpers.training import curve, text_rows
from tests.training.test_netaug import run

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    trained = run(folder / "run", kind="mlm", rows=text_rows(21), per_device_train_batch_size=3)
    names = ("loss", "soft_target_kl", "hidden_mse", "wider_loss")
    parameters = dict(trained.accelerator.unwrap_model(trained.model).named_parameters())
    found = {
        "world_size": trained.args.world_size,
        "wrapper": type(trained.model_wrapped).__name__,
        "curves": {name: curve(trained, name) for name in names},
        "flops": trained.spent()["further_flops"],
        "sums": {name: float(weight.double().abs().sum()) for name, weight in parameters.items()},
    }
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    del trained
    gc.collect()  # trainers are in reference cycles, which hold the connection
    dist.destroy_process_group()
