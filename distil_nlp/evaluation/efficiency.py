"""Inference costs: floating-point operations, latency, throughput and memory of teacher and student."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from distil_nlp.models import usable_positions
from distil_nlp.utils.environment import device_name
from distil_nlp.utils.memory import LiveBytes

_SEQUENCE_LENGTH = 128
_UNLIMITED = 30_000
"""Words that random tokens are drawn from where a model has no vocabulary."""


def measure_efficiency(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    *,
    device: torch.device | str,
    bf16: bool = False,
    sequence_length: int = _SEQUENCE_LENGTH,
    batch_sizes: tuple[int, ...] = (1, 32),
    warm_up: int = 2,
    repeats: tuple[int, int] = (10, 50),
    seconds: float = 5.0,
) -> dict[str, dict[str, Any]]:
    """Return costs as keys `teacher` and `student` of `results.json`, and conditions as `efficiency`.

    An inference forward of the whole model is measured, head included: logits of the pooled token for classification
    and regression; for language modelling the vocabulary at every position, as fill-mask runs it. Inputs are random
    tokens without padding, as many as both models have positions for, at most `sequence_length`. Copies in float32
    are measured, under autocast if `bf16`; the models stay as they are.

    - `flops_per_token`: floating-point operations of the matrix products, 2 to a multiply-add, attention included.
    - `latency_ms`, by batch size: median and 95th percentile. The models take turns, so that other load on the machine
      slows both.
    - `tokens_per_second`, by batch size: at the median latency.
    - `peak_memory_mib`: weights, and the peak of all other tensors in a forward at the largest batch. On CUDA this is
      all that PyTorch allocates; elsewhere the tensors that operators return, without scratch space inside an
      operator. Libraries, Python and memory that the allocator keeps in reserve do not count.

    Args:
        teacher: model or ensemble.
        student: model.
        device: where both run.
        bf16: run under autocast in bfloat16.
        sequence_length: upper limit of input tokens.
        batch_sizes: sequences of a forward.
        warm_up: forwards before the clock starts.
        repeats: least and most forwards of each model for each batch size.
        seconds: time for a batch size, after which no more than the least are run.
    """
    device = torch.device(device)
    length = _length(teacher, student, sequence_length)
    models = {"teacher": _copy(teacher, device), "student": _copy(student, device)}
    costs: dict[str, dict[str, Any]] = {name: {"latency_ms": {}, "tokens_per_second": {}} for name in models}
    for size in batch_sizes:
        inputs = _inputs(models.values(), size, length)
        runs = {name: partial(_forward, model, inputs, bf16) for name, model in models.items()}
        for name, times in _alternate(runs, warm_up, repeats, seconds).items():
            median, p95 = np.percentile(times, (50, 95)).tolist()
            milliseconds = {"median": round(median * 1e3, 4), "p95": round(p95 * 1e3, 4), "repeats": len(times)}
            costs[name]["latency_ms"][str(size)] = milliseconds
            costs[name]["tokens_per_second"][str(size)] = round(size * length / median, 1)
    smallest, largest = (_inputs(models.values(), size, length) for size in (1, max(batch_sizes)))
    for name, model in models.items():
        costs[name]["flops_per_token"] = _flops(model, smallest) / length
        costs[name]["peak_memory_mib"] = round(_peak_bytes(model, largest, bf16) / 2**20, 2)
    teacher_ms, student_ms = (costs[name]["latency_ms"] for name in models)
    conditions = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": "bfloat16" if bf16 else "float32",
        "sequence_length": length,
        "warm_up": warm_up,
        "speed_up": {size: round(teacher_ms[size]["median"] / student_ms[size]["median"], 3) for size in teacher_ms},
    }
    return {**costs, "efficiency": conditions}


def longest_inputs(teacher: PreTrainedModel, student: PreTrainedModel) -> dict[str, Tensor]:
    """Return one row as long as those that `measure_efficiency` takes by default."""
    return _inputs([teacher, student], 1, _length(teacher, student, _SEQUENCE_LENGTH))


def _length(teacher: PreTrainedModel, student: PreTrainedModel, limit: int) -> int:
    return min(limit, *(usable_positions(model.config) for model in (teacher, student)))


def _copy(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a copy in float32, so that both models compare: a frozen teacher in bfloat16 would cost less."""
    return copy.deepcopy(model).to(device, torch.float32).requires_grad_(False).eval()


def _inputs(models: Iterable[PreTrainedModel], size: int, length: int) -> dict[str, Tensor]:
    """Return random tokens that all models know, none of them padding, (size, length)."""
    models = list(models)
    vocabulary = min(getattr(model.config, "vocab_size", _UNLIMITED) for model in models)  # CANINE has characters
    padding = models[0].config.pad_token_id
    ids = torch.randint(vocabulary - 1, (size, length), generator=torch.Generator().manual_seed(0))
    if padding is not None:
        ids += ids >= padding
    ids = ids.to(models[0].device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _forward(model: PreTrainedModel, inputs: dict[str, Tensor], bf16: bool) -> Tensor:
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        return model(**inputs).logits


@torch.inference_mode()
def _alternate(
    runs: dict[str, Callable[[], Any]], warm_up: int, repeats: tuple[int, int], budget: float
) -> dict[str, list[float]]:
    """Return the seconds of each run; the runs take turns. `timer` waits for the device."""
    for _ in range(warm_up):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin, (least, most) = timer(), repeats
    for number in range(most):
        if number >= least and timer() - begin > budget:
            break
        for name, run in runs.items():
            start = timer()
            run()
            times[name].append(timer() - start)
    return times


@torch.no_grad()
def _flops(model: PreTrainedModel, inputs: dict[str, Tensor]) -> int:
    """Return the floating-point operations of a forward.

    Attention runs as plain matrix products, since fused attention is not counted on the CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops()


@torch.no_grad()
def _peak_bytes(model: PreTrainedModel, inputs: dict[str, Tensor], bf16: bool) -> int:
    """Return the bytes of the weights plus the peak of all other tensors in a forward."""
    live = LiveBytes()
    for weight in (*model.parameters(), *model.buffers()):
        live.see(weight)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        _forward(model, inputs, bf16)
        return live.peak + torch.cuda.max_memory_allocated(model.device) - before
    with live:
        _forward(model, inputs, bf16)
    return live.peak
