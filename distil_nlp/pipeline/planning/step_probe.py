"""A few micro-batches of a training, taken, counted and timed without leaving anything."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from distil_nlp.pipeline.planning.batches import PlannedBatches, row_lengths
from distil_nlp.pipeline.planning.curve import CostCurve
from distil_nlp.pipeline.planning.memory import TrainingMemory, activations_of, bytes_of, optimizer_bytes
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.memory import LiveBytes

CACHE = "cache"
"""Folder, in that of the probed steps, for a teacher's outputs on their rows."""
_WIDTHS, _PASSES, _FEWEST = 6, 5, 3
"""Different widths that are timed; times that each of them is, at most; fewest micro-batches that are timed."""
_COUNTED, _COUNTED_ROWS = 3, 8
"""Widths whose operations are counted first, and rows of a micro-batch where nothing is timed."""
_SECONDS = 8.0
"""No further micro-batch is begun after this time."""
Build = Callable[[TrainingArguments], DistillationTrainer]


@dataclass(frozen=True)
class ProbedSteps:
    """What the steps of a training cost, as a few of them showed.

    Attributes:
        memory: parts of the memory, in a micro-batch of the longest rows.
        flops: operations of a micro-batch by its width; None where they cannot be counted.
        seconds: of a micro-batch without the optimiser, by its width; None where nothing was timed.
        start_seconds: of building what trains.
        optimizer_seconds: of a step of the optimiser.
        teacher_share: share of the teacher's forward in the seconds of the timed micro-batches.
        term_shares: that of each term's own sums, their backward aside.
        checkpoint: seconds and bytes of a checkpoint; None where none is saved or nothing was timed.
        cache_row_bytes: of a row's outputs on disk; 0 without a cache.
        cached_epochs: epochs that are cached; 0 without a cache.
    """

    memory: TrainingMemory
    flops: CostCurve | None = None
    seconds: CostCurve | None = None
    start_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    teacher_share: float = 0.0
    term_shares: Mapping[str, float] = field(default_factory=dict)
    checkpoint: tuple[float, int] | None = None
    cache_row_bytes: float = 0.0
    cached_epochs: int = 0


def probe_steps(
    build: Build, args: TrainingArguments, batches: PlannedBatches, rows: Any, is_timed: bool
) -> ProbedSteps:
    """Take some micro-batches of a training, from short to long ones, and return what they cost.

    They are some that the run's first epoch has, whose widths are evenly spaced quantiles of all. Blocks are not
    compiled.

    Args:
        build: arguments → trainer, whose model is changed by the steps.
        args: the training's own arguments, which stay as they are.
        batches: of the training.
        rows: of the training.
        is_timed: whether to time steps; otherwise a few rows are counted.
    """
    size = args.per_device_train_batch_size if is_timed else min(args.per_device_train_batch_size, _COUNTED_ROWS)
    chosen = [_longest_first(numbers, rows)[:size] for numbers in batches.representative(_WIDTHS)]
    order = _order(len(chosen) or _WIDTHS, is_timed)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        trainer = build(few_steps(args, folder, len(order), size))
        start = time.perf_counter() - begin
        if chosen:
            trainer.train_dataset = rows.select(np.concatenate([chosen[i] for i in order]))
            trainer.args.train_sampling_strategy = "sequential"
        watch = _StepWatch(trainer)
        trainer.train()
        found = _probed(trainer, watch, args, batches.size / size, is_timed, Path(folder))
        return replace(found, start_seconds=start)


def _longest_first(numbers: np.ndarray, rows: Any) -> np.ndarray:
    """Return the rows of a micro-batch, the longest first, so that a part of them is as wide."""
    return numbers[np.argsort(-row_lengths(rows.select(numbers)), kind="stable")]


def _order(count: int, is_timed: bool) -> list[int]:
    """Return which widths are taken, by number: the longest, shortest and middle are counted, all are then timed."""
    counted = [count - 1, 0, count // 2]
    spread = sorted(range(count), key=lambda i: (i * 5 + 3) % count)  # neither up nor down, should others use the cores
    return [*counted, *(spread * _PASSES if is_timed else [])]


def few_steps(args: TrainingArguments, folder: str, steps: int, size: int) -> TrainingArguments:
    """Return arguments for a few micro-batches, each with a step of its own, that log and save nothing."""
    args = copy.copy(args)
    args.output_dir, args.report_to, args.torch_compile, args.disable_tqdm = folder, [], False, True
    args.max_steps, args.gradient_accumulation_steps, args.per_device_train_batch_size = steps, 1, size
    args.save_strategy, args.load_best_model_at_end = SaveStrategy.NO, False
    args.eval_strategy = args.logging_strategy = IntervalStrategy.NO
    args.eval_on_start, args.train_sampling_strategy = False, "random"
    return args


@dataclass
class _MicroBatch:
    """A micro-batch that was taken."""

    width: int
    tokens: int
    seconds: float = 0.0
    optimizer: float = 0.0
    teacher: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    flops: float | None = None
    peak: int = 0


@dataclass
class _StepWatch(TrainerCallback):
    """Counts the operations and bytes of the first micro-batches, times the others, and ends when the time is up."""

    trainer: DistillationTrainer
    taken: list[_MicroBatch] = field(default_factory=list)
    _mark: float = 0.0
    _began: float = 0.0
    _forward: float = 0.0
    _teacher: float = 0.0
    _optimizer: float = 0.0

    def __post_init__(self) -> None:
        for callback in (PrinterCallback, ProgressCallback):
            self.trainer.remove_callback(callback)
        self.trainer.add_callback(self)
        self._step = self.trainer.training_step
        self.trainer.training_step = self._watched  # type: ignore[method-assign]
        for term in self.trainer.objective.terms:
            term.sum = partial(self._timed_term, term.name, term.sum)  # type: ignore[method-assign]
        self._hooks = [hook for model in self.trainer.source.models for hook in self._hooks_on(model)]

    def _hooks_on(self, model: torch.nn.Module) -> list[Any]:
        return [
            model.register_forward_pre_hook(lambda *_: self._start_teacher()),
            model.register_forward_hook(lambda *_: self._end_teacher()),
        ]

    def _timed_term(self, name: str, own: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
        begin = self._now()
        value = own(*args)
        seconds = self.taken[-1].terms
        seconds[name] = seconds.get(name, 0.0) + self._now() - begin
        return value

    def _start_teacher(self) -> None:
        self._forward = self._now()

    def _end_teacher(self) -> None:
        self._teacher += self._now() - self._forward

    def _watched(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take a micro-batch; the first ones with their operations and the bytes of new tensors."""
        taken = _MicroBatch(inputs["input_ids"].shape[1], inputs["tokens"])
        self.taken.append(taken)
        if len(self.taken) > _COUNTED:
            return self._step(model, inputs, *args, **kwargs)
        self.trainer.flops_per_token, before = None, self.trainer.further.flops
        with _PeakBytes(self.trainer.args.device) as peak:
            loss = self._step(model, inputs, *args, **kwargs)
        taken.peak = peak.bytes
        if self.trainer.flops_per_token is not None:
            taken.flops = self.trainer.flops_per_token * taken.tokens + self.trainer.further.flops - before
        return loss

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = self._mark = self._now()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._optimizer = self._now()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.taken[-1].optimizer = self._now() - self._optimizer

    def on_step_end(self, args: TrainingArguments, state: Any, control: TrainerControl, **_: Any) -> None:
        now, taken = self._now(), self.taken[-1]
        taken.seconds, taken.teacher = now - self._mark - taken.optimizer, self._teacher
        self._mark, self._teacher = now, 0.0
        if len(self.taken) >= _COUNTED + _FEWEST and now - self._began > _SECONDS:
            control.should_training_stop = True

    def _now(self) -> float:
        if self.trainer.args.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.args.device)
        return time.perf_counter()

    def remove(self) -> None:
        """Take the hooks off the teacher and the terms."""
        for term in self.trainer.objective.terms:
            del term.sum
        for hook in self._hooks:
            hook.remove()


class _PeakBytes:
    """Within this context, the most bytes of new tensors."""

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, 0
        self._live = LiveBytes() if device.type != "cuda" else None

    def __enter__(self) -> _PeakBytes:
        if self._live is not None:
            self._live.__enter__()
        else:
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)
            self.bytes = self._live.peak
        else:
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before


def _probed(
    trainer: DistillationTrainer,
    watch: _StepWatch,
    args: TrainingArguments,
    scale: float,
    is_timed: bool,
    folder: Path,
) -> ProbedSteps:
    """Return what the micro-batches that were taken say.

    Args:
        scale: rows of the run's micro-batch ÷ rows of one of these.
    """
    counted, timed = watch.taken[:_COUNTED], watch.taken[_COUNTED:] if is_timed else []
    student = trainer.teacher_student.student
    gradients = bytes_of(weight for weight in student.parameters() if weight.requires_grad)
    peak = max(one.peak for one in counted)
    if scale != 1:  # gradients do not grow with the rows
        peak = round((peak - gradients) * scale) + gradients
    memory = TrainingMemory(
        weights=bytes_of((*student.parameters(), *student.buffers())),
        gradients=gradients,
        optimizer=optimizer_bytes(trainer.optimizer),
        teacher=bytes_of(weight for model in trainer.source.models for weight in model.parameters()),
        activations=activations_of(peak, gradients, args.gradient_accumulation_steps > 1),
    )
    widths = [one.width for one in counted]
    flops = [one.flops * scale for one in counted if one.flops is not None]
    seconds = [one.seconds for one in timed]
    checkpoint, epochs, rows = None, trainer.source.cached_epochs or 0, trainer.train_dataset
    if is_timed and args.save_strategy != SaveStrategy.NO and args.should_save:
        checkpoint = _time_checkpoint(trainer, folder)
    watch.remove()
    trainer.detach()
    return ProbedSteps(
        memory,
        flops=CostCurve.fit(widths, flops) if len(flops) == len(widths) else None,
        seconds=CostCurve.fit([one.width for one in timed], seconds) if timed else None,
        optimizer_seconds=float(np.mean([one.optimizer for one in timed])) if timed else 0.0,
        teacher_share=sum(one.teacher for one in timed) / max(sum(seconds), 1e-9),
        term_shares={
            name: sum(one.terms.get(name, 0.0) for one in timed) / sum(seconds) for name in trainer.objective.names
        }
        if timed
        else {},
        checkpoint=checkpoint,
        cache_row_bytes=_size(folder / CACHE) / (epochs * len(rows)) if epochs else 0.0,  # type: ignore[arg-type]
        cached_epochs=epochs,
    )


def _time_checkpoint(trainer: DistillationTrainer, folder: Path) -> tuple[float, int]:
    """Return seconds and bytes of a checkpoint of the training."""
    begin = time.perf_counter()
    trainer.save_checkpoint()
    seconds = time.perf_counter() - begin
    (saved,) = folder.glob("checkpoint-*")
    return seconds, _size(saved)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
