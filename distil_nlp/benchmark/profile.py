"""Where the time of a step goes, by kinds of operators."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from distil_nlp.benchmark import trainer_steps as ours
from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import Workload

KINDS = {
    "matrix products": r"^(addmm|mm|linear|addmv)_?$",
    "losses": r"log_softmax|kl_div|nll_loss|cosine|logsumexp|^exp$",
    "attention": r"scaled_dot_product|bmm|softmax",
    "dropout": r"bernoulli|dropout",
    "activation and norm": r"gelu|layer_norm|tanh",
    "optimiser and clipping": r"adamw|vector_norm|Optimizer",
    "copies and fills": r"copy|fill|zero|cat$|index|embedding|clone",
}
"""Kind → pattern of its operators' names; the first that fits counts."""


def run_profiled(turns: StepGate, work: Workload) -> None:
    """Ours on masked tokens; tells of each step what share of the operators' time each kind took."""
    ours.run_trainer(_ProfiledGate(turns, work.device), work)


class _ProfiledGate:
    """Turns whose steps are profiled."""

    def __init__(self, turns: StepGate, device: str):
        self._turns, self._profile = turns, None
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]

    def __call__(self) -> None:
        told: dict[str, Any] = {}
        if self._profile is not None:
            self._profile.__exit__(None, None, None)
            told = {"shares": time_by_kind(self._profile)}
        self._turns(**told)
        self._profile = profile(activities=self._activities)
        self._profile.__enter__()


def time_by_kind(seen: profile) -> dict[str, float]:
    """Kind → its share of all operators' own time: the device's, if there is one."""
    events = seen.key_averages()
    on_device = any(event.self_device_time_total for event in events) and torch.cuda.is_available()
    found: dict[str, float] = defaultdict(float)
    for event in events:
        found[kind_of(event.key)] += event.self_device_time_total if on_device else event.self_cpu_time_total
    total = sum(found.values()) or 1.0
    return {kind: round(time / total, 4) for kind, time in sorted(found.items(), key=lambda pair: -pair[1])}


def kind_of(name: str) -> str:
    """What kind an operator is of."""
    short = name.removeprefix("aten::")
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, short)), "other")
