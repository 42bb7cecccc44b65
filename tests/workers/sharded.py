"""A process of sharded steps (raw `fully_shard`, FSDP2), started by torchrun; writes the gradient and losses."""

import sys
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from distil_nlp.training import trainer as training
from tests.helpers import tiny
from tests.helpers.training import text_rows, trainer
from tests.helpers.worker import end

ROWS, STEPS = 8, 30


def steps(folder: Path, rank: int = 0, processes: int = 1) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return (the first gradient, the loss of every step) with all terms and projections, on this process's rows.

    The student is sharded if there are several processes.
    """
    student = tiny.mlm_model(2, seed=1, hidden_size=16, intermediate_size=32)
    with patch.dict(training._CHUNK_BYTES, cpu=5 * 4 * len(tiny.VOCABULARY)):  # several chunks
        run = trainer(folder, student, tiny.mlm_model(4))
    if processes > 1:
        mesh = init_device_mesh("cpu", (processes,))
        for part in (*student.bert.encoder.layer, student):
            fully_shard(part, mesh=mesh)
        assert isinstance(student, FSDPModule)
    optimiser, gradient, losses = torch.optim.AdamW(student.parameters(), lr=1e-3), None, []
    rows = text_rows(ROWS * STEPS)
    for step in range(STEPS):
        batch = run.data_collator(rows[step * ROWS : (step + 1) * ROWS][rank::processes])
        counts = torch.tensor(run.objective.counts(batch["rows"]), dtype=torch.float32)
        if processes > 1:
            dist.all_reduce(counts)
        loss, *_ = run.teacher_student.compute(student, batch, 0.0, run.objective.row_weights(0.0, counts))
        (loss * processes).backward()
        gradient = gradient or _whole(student, processes)
        optimiser.step()
        optimiser.zero_grad()
        loss = loss.detach()
        if processes > 1:
            dist.all_reduce(loss)
        losses.append(loss.item())
    return gradient, losses


def _whole(student: torch.nn.Module, processes: int) -> dict[str, torch.Tensor]:
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    return {name: grad.full_tensor() if processes > 1 else grad.clone() for name, grad in gradients.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    out = Path(sys.argv[1])
    results = steps(out.parent / "run", dist.get_rank(), dist.get_world_size())
    if dist.get_rank() == 0:
        torch.save(results, out)
    end()
