"""What processes tell each other in a step: bytes, and seconds beside those of the arithmetic."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils.benchmark import timer
from transformers import TrainerCallback

from distil_nlp.benchmark.trainer_steps import distillation_trainer
from distil_nlp.benchmark.workload import Workload
from distil_nlp.errors import UserError


class StepTimer(TrainerCallback):
    """Seconds of each step of the slowest process, and the bytes of gradients that DDP exchanges in one."""

    def __init__(self):
        self.trainer: Any = None
        self.seconds, self.bytes = [], 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.trainer.model_wrapped.register_comm_hook(None, self._exchange)  # raises unless it is DDP
        self.bytes = 0
        dist.barrier()
        self._began = timer()

    def _exchange(self, state, bucket):  # without annotations, which torch compares unevaluated
        self.bytes += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        took = torch.tensor(timer() - self._began)
        dist.all_reduce(took, dist.ReduceOp.MAX)
        self.seconds.append(took.item())


def measure_communication(work: Workload, rounds: int, warm_up: int, accumulation: int = 4) -> dict[str, Any]:
    """Medians of steps of one micro-batch and of several, the exchange at the end of both, and what follows.

    With s₁ and sₙ seconds for steps of 1 and n micro-batches, a micro-batch takes (sₙ − s₁) ÷ (n − 1), and what a step
    has besides is s₁ less that: the exchange as far as the backward does not hide it, clipping, the optimiser. The
    exchange alone is an all-reduce of as many bytes.

    Raises:
        UserError: if this process is alone.
    """
    if not dist.is_torchelastic_launched():
        raise UserError(
            "--parts communication: expected several processes / got one / nobody to talk to / start it by "
            "torchrun --nproc_per_node 2 scripts/benchmark.py --parts communication"
        )
    steps = {}
    for count in (1, accumulation):
        steps[count] = watch = StepTimer()
        run = distillation_trainer(work, [watch], max_steps=warm_up + rounds, gradient_accumulation_steps=count)
        watch.trainer = run
        run.train()
    one, several = (median(watch.seconds[warm_up:]) for watch in steps.values())
    micro_batch = (several - one) / (accumulation - 1)
    return {
        "processes": dist.get_world_size(),
        "tokens": work.tokens,
        "bytes": steps[1].bytes,
        "steps_s": {count: watch.seconds[warm_up:] for count, watch in steps.items()},
        "micro_batch_s": micro_batch,
        "besides_s": one - micro_batch,
        "alone_s": _alone(steps[1].bytes, rounds, run.args.device),
    }


def _alone(size: int, rounds: int, device: torch.device) -> list[float]:
    """Seconds of all-reduces of so many bytes."""
    gradient, found = torch.zeros(size // 4, device=device), []
    for _ in range(rounds):
        dist.barrier()
        began = timer()
        dist.all_reduce(gradient)
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(timer() - began)
    return found
