"""One process of a sharded step (raw `fully_shard`, FSDP2), started by torchrun: writes the gradient of the whole."""

import sys
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from distil_nlp import trainer as training
from tests import tiny
from tests.training import text_rows, trainer

ROWS = 8


def gradient(folder: Path, rank: int = 0, processes: int = 1) -> dict[str, torch.Tensor]:
    """Of all terms, projections included, on this process's rows; sharded where there are several processes."""
    student = tiny.mlm_model(2, seed=1, hidden_size=16, intermediate_size=32)
    with patch.dict(training._CHUNK_BYTES, cpu=5 * 4 * len(tiny.VOCABULARY)):  # several chunks
        run = trainer(folder, student, tiny.mlm_model(4))
    batch = run.data_collator(text_rows(ROWS)[rank::processes])
    counts = torch.tensor(run.objective.counts(batch["rows"]), dtype=torch.float32)
    if processes > 1:
        mesh = init_device_mesh("cpu", (processes,))
        for part in (*student.bert.encoder.layer, student):
            fully_shard(part, mesh=mesh)
        assert isinstance(student, FSDPModule)
        dist.all_reduce(counts)
    loss, *_ = run._measure(student, batch, 0.0, run.objective.factors(0.0, counts))
    (loss * processes).backward()
    found = {name: one.grad for name, one in student.named_parameters() if one.grad is not None}
    return {name: one.full_tensor() if processes > 1 else one for name, one in found.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    out = Path(sys.argv[1])
    found = gradient(out.parent / "run", dist.get_rank(), dist.get_world_size())
    if dist.get_rank() == 0:
        torch.save(found, out)
    dist.destroy_process_group()
