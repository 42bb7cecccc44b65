"""A process of two, of which only the second gets SIGTERM; each writes the step at which it stopped."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from distil_nlp.training.preemption import Preempted
from tests.helpers import tiny
from tests.helpers.training import trainer
from tests.helpers.worker import end


class Preempt(TrainerCallback):
    """Sends SIGTERM to the second process after step 3."""

    def on_step_end(self, args, state, control, **kwargs):
        if dist.get_rank() == 1 and state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    run = trainer(folder / "run", tiny.mlm_model(2, seed=1), tiny.mlm_model(4), max_steps=40, callbacks=[Preempt()])
    assert run.args.world_size == 2
    try:
        run.train()
    except Preempted:
        (folder / f"stopped-{dist.get_rank()}").write_text(str(run.state.global_step))
    del run
    end()
