"""Inference costs: floating-point operations, memory, and latency as it is served, of teacher and student."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from distil_nlp.data.encodings import OWN, batch_of, columns_of
from distil_nlp.evaluation.latency import (
    Inputs,
    InputSource,
    LatencyPlan,
    Lengths,
    TimedModel,
    measure_latency,
    using_threads,
)
from distil_nlp.models import usable_positions
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.outputs import output_logits
from distil_nlp.models.segments import fit_segments
from distil_nlp.signals.types import forward_arguments
from distil_nlp.utils.environment import device_name
from distil_nlp.utils.memory import LiveBytes

_UNLIMITED = 30_000
"""Words that random tokens are drawn from where a model has no vocabulary."""
_COLLATED = frozenset({"word_ids", "is_allowed"})
"""Columns that some collators read besides the inputs of models."""
_SAMPLED_ROWS = 128
"""Most rows of the data that are timed at one batch size."""
_TURNS = LatencyPlan((1,), ("max_length",), seconds=1.0, forwards=(5, 60), memory=False)
"""Turns of `forward_milliseconds`."""


def measure_efficiency(
    models: Mapping[str, PreTrainedModel],
    rows: Any,
    collator: Callable,
    *,
    plan: LatencyPlan,
    max_length: int,
    device: torch.device | str,
    bf16: bool = False,
    encodings: Mapping[str, str] | None = None,
    further: Mapping[str, TimedModel] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the costs of each model as keys of its block in `results.json`, and the key `efficiency`.

    An inference forward of the whole model is measured, head included: logits of the pooled token for classification
    and regression; for language modelling the vocabulary at every position, as fill-mask runs it. Copies in float32
    are measured, under autocast if `bf16`; the models stay as they are.

    - `flops_per_token`: floating-point operations of the matrix products, 2 to a multiply-add, attention included, of
      a row of `max_length` tokens.
    - `peak_memory_mib`, if the plan takes it: weights, and the peak of all other tensors in a forward of the largest
      batch of such rows. On CUDA this is all that PyTorch allocates; elsewhere the tensors that operators return,
      without scratch space inside an operator. Libraries, Python and memory that the allocator keeps in reserve do not
      count.
    - `efficiency.latency`: see `measure_latency`. Inputs are rows of the data, drawn with a fixed seed and padded to
      the longest of their batch, and rows of `max_length` random tokens; only these for data whose rows are all so
      long.

    It takes `plan.seconds` for latencies (60 seconds in all for `full`, 6 for `quick`), or longer by what the least
    forwards of one setting take, and a forward of each model for operations and for memory.

    Args:
        models: name → model or ensemble.
        rows: an evaluation split; None for random tokens alone.
        collator: makes batches of rows.
        plan: settings and time of latencies.
        max_length: tokens of the longest inputs; fewer where a model has fewer positions.
        device: where the models run.
        bf16: run under autocast in bfloat16.
        encodings: name → the tokens that a model reads of the data's own rows, where they are not the student's; see
            `distil_nlp.data.encodings`. An ensemble knows those of its members.
        further: name → forward of what is timed beside the models, such as an exported graph.
    """
    device, begin = torch.device(device), timer()
    length = min(max_length, *(usable_positions(model.config) for model in models.values()))
    copies = {name: _copy(model, device) for name, model in models.items()}
    read = {name: (encodings or {}).get(name, OWN) for name in copies}
    forwards: dict[str, TimedModel] = {name: _forward_of(model, bf16, read[name]) for name, model in copies.items()}
    forwards |= further or {}
    columns = frozenset({"attention_mask"}).union(*(_columns(model, read[name]) for name, model in copies.items()))
    data = _ServedRows(rows, collator, columns, device)

    def longest(size: int) -> list[Inputs]:
        return [_random_tokens(copies.values(), size, length)]

    sources: dict[Lengths, InputSource] = {"data": data.batches} if data.has_shorter_than(length) else {}
    latency, left_out = measure_latency(forwards, {**sources, "max_length": longest}, plan, device)
    costs = {name: {"flops_per_token": _flops(model, *longest(1)) / length} for name, model in copies.items()}
    if plan.memory:
        for name, model in copies.items():
            peak = _peak_bytes(model, forwards[name], *longest(max(plan.batch_sizes)))
            costs[name]["peak_memory_mib"] = round(peak / 2**20, 2)
    conditions = {
        "device": device_name(device),
        "dtype": "bfloat16" if bf16 else "float32",
        "max_length": length,
        "warm_up": plan.warm_up,
        "seconds": round(timer() - begin, 1),
        "latency": latency,
        "left_out": left_out,
    }
    return {**costs, "efficiency": conditions}


def longest_inputs(models: Iterable[PreTrainedModel], max_length: int) -> Inputs:
    """Return a row of the longest inputs that `measure_efficiency` takes, (1, tokens)."""
    models = list(models)
    return _random_tokens(models, 1, min(max_length, *(usable_positions(model.config) for model in models)))


class _ServedRows:
    """Rows of the data in a random order, as a service gets them.

    Args:
        rows: an evaluation split; None for no rows.
        collator: makes batches of rows.
        columns: inputs of the models.
        device: of the batches.
    """

    def __init__(self, rows: Any, collator: Callable, columns: frozenset[str], device: torch.device):
        self._collator, self._columns, self._device = collator, columns, device
        drawn = np.random.default_rng(0).permutation(0 if rows is None else len(rows))[:_SAMPLED_ROWS]
        known = columns | _COLLATED
        self._rows = [{key: value for key, value in rows[int(i)].items() if key in known} for i in drawn]

    def has_shorter_than(self, length: int) -> bool:
        """Return whether any row has fewer tokens."""
        return any(len(row["input_ids"]) < length for row in self._rows)

    def batches(self, size: int) -> list[Inputs]:
        """Return different batches; rows come again where there are too few."""
        count = max(len(self._rows) // size, 1)
        rows = [self._rows[i % len(self._rows)] for i in range(count * size)]
        return [self._batch(rows[i : i + size]) for i in range(0, len(rows), size)]

    def _batch(self, rows: list[dict[str, Any]]) -> Inputs:
        batch = self._collator(rows)
        batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
        return {name: value.to(self._device) for name, value in batch.items() if name in self._columns}


def _copy(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a copy in float32, so that models compare: a frozen teacher in bfloat16 would cost less."""
    own = copy.deepcopy(model).to(device, torch.float32)  # type: ignore[arg-type]  # transformers wraps `to` without its types
    return own.requires_grad_(False).eval()


def _random_tokens(models: Iterable[PreTrainedModel], size: int, length: int) -> dict[str, Tensor]:
    """Return random tokens that all models know, none of them padding, (size, length)."""
    models = list(models)
    vocabulary = min(getattr(model.config, "vocab_size", _UNLIMITED) for model in models)  # CANINE has characters
    padding = models[0].config.pad_token_id
    ids = torch.randint(vocabulary - 1, (size, length), generator=torch.Generator().manual_seed(0))
    if padding is not None:
        ids += ids >= padding
    ids = ids.to(models[0].device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _columns(model: PreTrainedModel, encoding: str) -> frozenset[str]:
    """Return the columns that a model reads; of an ensemble, those of all members."""
    further: Any = getattr(model, "encodings", ())
    members = zip(ensemble_members(model), further, strict=False)
    of_members = (columns_of(forward_arguments(member), other) for member, other in members)
    return columns_of(forward_arguments(model), encoding).union(*of_members)


def _forward_of(model: PreTrainedModel, bf16: bool, encoding: str) -> TimedModel:
    """Return the forward of a model, on the inputs that it knows; on those of its encoding where they are there."""
    known = _columns(model, encoding)

    def forward(inputs: Inputs) -> Tensor:
        is_encoded = f"{encoding}input_ids" in inputs
        read = {name: value for name, value in inputs.items() if name in known or not is_encoded}
        own = fit_segments(model.config, dict(batch_of(read, encoding) if is_encoded else read))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            return output_logits(model(**own))

    return forward


def forward_flops(model: PreTrainedModel, length: int) -> int:
    """Return the floating-point operations of a forward of one row of so many tokens."""
    return _flops(model, _random_tokens([model], 1, length))


def forward_milliseconds(
    models: Mapping[str, PreTrainedModel], batch: int, length: int, threads: int | None
) -> dict[str, float]:
    """Return the median milliseconds of each model's forward, in turns, of rows of random tokens.

    Args:
        models: on one device, in eval mode.
        batch: rows of a forward.
        length: tokens of a row, none of them padding.
        threads: of a CPU; all of the process if None.
    """
    device = next(iter(models.values())).device
    forwards = {name: _forward_of(model, False, OWN) for name, model in models.items()}
    source: Mapping[Lengths, InputSource] = {"max_length": lambda size: [_random_tokens(models.values(), size, length)]}
    with using_threads(threads):
        measured, _ = measure_latency(forwards, source, replace(_TURNS, batch_sizes=(batch,)), device)
    return {name: one["p50"] for name, one in measured[0]["models"].items()}


@torch.no_grad()
def _flops(model: PreTrainedModel, inputs: Inputs) -> int:
    """Return the floating-point operations of a forward.

    Attention runs as plain matrix products, since fused attention is not counted on the CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops()


@torch.no_grad()
def _peak_bytes(model: PreTrainedModel, forward: TimedModel, inputs: Inputs) -> int:
    """Return the bytes of the weights plus the peak of all other tensors in a forward."""
    live = LiveBytes()
    for weight in (*model.parameters(), *model.buffers()):
        live.see(weight)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        forward(inputs)
        return live.peak + torch.cuda.max_memory_allocated(model.device) - before
    with live:
        forward(inputs)
    return live.peak
