"""Communication between the processes of a step: its bytes, and its seconds beside those of the computation."""

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
    """Record the seconds of each step in the slowest process, and the bytes of gradients that DDP exchanges in one."""

    def __init__(self):
        self.trainer: Any = None
        self.seconds, self.bytes = [], 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.trainer.model_wrapped.register_comm_hook(None, self._exchange)  # raises unless it is DDP
        self.bytes = 0
        dist.barrier()
        self._start = timer()

    def _exchange(self, state, bucket):  # without annotations, which torch compares unevaluated
        self.bytes += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None is the default group

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        seconds = torch.tensor(timer() - self._start)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        self.seconds.append(seconds.item())


def measure_communication(work: Workload, rounds: int, warm_up: int, accumulation: int = 4) -> dict[str, Any]:
    """Return the seconds of steps of one and of several micro-batches, and the cost of communication they imply.

    Both kinds of step exchange gradients once, at their end. With s₁ and sₙ the median seconds of steps of 1 and n
    micro-batches, a micro-batch takes (sₙ − s₁) ÷ (n − 1), and the rest of a step is s₁ less that: the exchange as
    far as the backward does not hide it, clipping, the optimiser. The exchange alone is an all-reduce of as many bytes.

    Raises:
        UserError: if this process is alone.
    """
    if not dist.is_torchelastic_launched():
        raise UserError(
            "--parts communication",
            "several processes",
            "one",
            why="there is no communication to measure",
            fix="start it with torchrun --nproc_per_node 2 scripts/benchmark.py --parts communication",
        )
    timers = {}
    for count in (1, accumulation):
        timers[count] = step_timer = StepTimer()
        trainer = distillation_trainer(
            work, [step_timer], max_steps=warm_up + rounds, gradient_accumulation_steps=count
        )
        step_timer.trainer = trainer
        trainer.train()
    single, accumulated = (median(step_timer.seconds[warm_up:]) for step_timer in timers.values())
    micro_batch = (accumulated - single) / (accumulation - 1)
    return {
        "processes": dist.get_world_size(),
        "tokens": work.tokens,
        "bytes": timers[1].bytes,
        "steps_s": {count: step_timer.seconds[warm_up:] for count, step_timer in timers.items()},
        "micro_batch_s": micro_batch,
        "besides_s": single - micro_batch,
        "alone_s": _all_reduce_seconds(timers[1].bytes, rounds, trainer.args.device),
    }


def _all_reduce_seconds(size: int, rounds: int, device: torch.device) -> list[float]:
    """Return the seconds of each of some all-reduces of `size` bytes."""
    gradient, seconds = torch.zeros(size // 4, device=device), []
    for _ in range(rounds):
        dist.barrier()
        start = timer()
        dist.all_reduce(gradient)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(timer() - start)
    return seconds
