"""A few micro-batches of a training, taken and timed without leaving anything."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from distil_nlp.utils.environment import peak_memory_mib

_WARM_UP, _LEAST, _MOST = 1, 1, 10
"""Steps that are not timed; fewest and most that are."""
_SECONDS = 5.0
"""No further step is begun after this time."""


class _Clock(TrainerCallback):
    """Times each step, and ends training when the time is up."""

    def __init__(self) -> None:
        self.start = 0.0
        self.seconds: list[float] = []

    def on_step_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        self.start = _now(args.device)

    def on_step_end(self, args: TrainingArguments, state: Any, control: TrainerControl, **_: Any) -> None:
        self.seconds.append(_now(args.device) - self.start)
        if len(self.seconds) >= _WARM_UP + _LEAST and sum(self.seconds) > _SECONDS:
            control.should_training_stop = True


def time_micro_batches(build: Callable[[TrainingArguments], Trainer], args: TrainingArguments) -> tuple[float, float]:
    """Return (median seconds of a micro-batch with its optimiser step; peak memory in MiB of this process so far).

    Rows come in random order, since rows sorted by length would begin with the longest. Blocks are not compiled.

    Args:
        build: arguments → trainer, whose model is changed by the steps.
        args: the training's own arguments, which stay as they are.
    """
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(_few_steps(args, folder))
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(clock)
        trainer.train()
    return statistics.median(clock.seconds[_WARM_UP:]), peak_memory_mib(args.device)


def _few_steps(args: TrainingArguments, folder: str) -> TrainingArguments:
    args = copy.copy(args)
    args.output_dir, args.report_to, args.torch_compile, args.disable_tqdm = folder, [], False, True
    args.max_steps, args.gradient_accumulation_steps = _WARM_UP + _MOST, 1
    args.save_strategy, args.load_best_model_at_end = SaveStrategy.NO, False
    args.eval_strategy = args.logging_strategy = IntervalStrategy.NO
    args.eval_on_start, args.train_sampling_strategy = False, "random"
    return args


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
