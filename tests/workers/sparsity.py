"""A process of two, which trains by movement pruning and writes its masks, its curve and sums of its weights."""

import gc
import hashlib
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from distil_nlp.training.sparsity import Pruner
from tests.helpers.training import curve
from tests.training.test_sparsity import pruned, sparse_mlm

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    trained = sparse_mlm(folder / "run", 3)
    masks = trained.extensions.of(Pruner).masks
    found = {
        "wrapper": type(trained.model_wrapped).__name__,
        "curve": curve(trained),
        "masks": {name: hashlib.sha256(mask.numpy().tobytes()).hexdigest() for name, mask in masks.items()},
    }
    rank = dist.get_rank()
    found["sums"] = {name: float(weight.double().abs().sum()) for name, weight in pruned(trained.detach()).items()}
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    del trained
    gc.collect()  # trainers are in reference cycles, which hold the connection
    dist.destroy_process_group()
