"""A process of two, which runs a step with all terms of each kind of task; writes gradients and terms."""

import itertools
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.helpers.gradients import Steps
from tests.helpers.training import trainer
from tests.helpers.worker import end
from tests.losses.test_terms import KINDS, STEPS, data, models, terms_of


def step(kind: str, name: str, out: Path) -> None:
    steps, (count, batch, accumulation) = Steps(), STEPS[name]
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    arguments |= {"max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0}
    arguments |= {"rows": data(kind, count), "callbacks": [steps]}
    terms = terms_of(kind, name)
    run = trainer(out / "run", *models(kind, terms), terms, kind=kind, **arguments)
    run.train()
    if dist.get_rank() == 0:
        wrapper = type(run.model_wrapped).__name__
        results = {"gradient": steps.gradients[0], "values": run.last_terms, "wrapper": wrapper}
        torch.save(results, out / f"{kind}-{name}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind, name in itertools.product(KINDS, STEPS):
        step(kind, name, Path(sys.argv[1]))
    end()
