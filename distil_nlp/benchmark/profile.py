"""The time of a step by kind of operator."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from distil_nlp.benchmark import trainer_steps
from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import Workload

OPERATOR_KINDS = {
    "matrix products": r"^(addmm|mm|linear|addmv)_?$",
    "losses": r"log_softmax|kl_div|nll_loss|cosine|logsumexp|^exp$",
    "attention": r"scaled_dot_product|bmm|softmax",
    "dropout": r"bernoulli|dropout",
    "activation and norm": r"gelu|layer_norm|tanh",
    "optimiser and clipping": r"adamw|vector_norm|Optimizer",
    "copies and fills": r"copy|fill|zero|cat$|index|embedding|clone",
}
"""Kind → pattern of its operators' names; the first match counts."""


def run_profiled(gate: StepGate, work: Workload) -> None:
    """Take steps of `DistillationTrainer` on masked tokens, and report each kind's fraction of the operators' time."""
    profiled: Any = _ProfiledGate(gate, work.device)
    trainer_steps.run_trainer(profiled, work)


class _ProfiledGate:
    """A gate that profiles the steps between its calls."""

    def __init__(self, gate: StepGate, device: str):
        self._gate = gate
        self._profile: profile | None = None
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]

    def __call__(self) -> None:
        extra: dict[str, Any] = {}
        if self._profile is not None:
            self._profile.__exit__(None, None, None)
            extra = {"fractions": time_by_kind(self._profile)}
        self._gate(**extra)
        self._profile = profile(activities=self._activities)
        self._profile.__enter__()


def time_by_kind(profiled: profile) -> dict[str, float]:
    """Return kind → its fraction of all operators' own time: on the device, if there is one."""
    events = profiled.key_averages()
    on_device = any(event.self_device_time_total for event in events) and torch.cuda.is_available()
    times: dict[str, float] = defaultdict(float)
    for event in events:
        times[kind_of(event.key)] += event.self_device_time_total if on_device else event.self_cpu_time_total
    total = sum(times.values()) or 1.0
    return {kind: round(time / total, 4) for kind, time in sorted(times.items(), key=lambda pair: -pair[1])}


def kind_of(name: str) -> str:
    """Return the kind of an operator by its name."""
    short = name.removeprefix("aten::")
    return next((kind for kind, pattern in OPERATOR_KINDS.items() if re.search(pattern, short)), "other")
