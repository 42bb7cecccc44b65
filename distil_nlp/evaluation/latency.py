"""Latency as it is served: models take turns at batches of the data's own lengths, and of the longest inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor
from torch.utils.benchmark import timer

Inputs = Mapping[str, Tensor]
TimedModel = Callable[[Inputs], Any]
"""A forward of a batch: of a transformers model, or of anything else that takes the same inputs."""
Lengths = Literal["data", "max_length"]
InputSource = Callable[[int], Sequence[Inputs]]
"""Rows of a batch → different batches of so many rows."""

_NARROW = 0.05
"""Width of the 95 % interval of a median, as a fraction of the median, at which it is known well enough."""
_FEWEST = 3
"""Different batches of a setting, where the data has so many rows."""
_PASSES, _ENOUGH = 3, 20
"""Times that each batch is run, and forwards in all, before a narrow interval ends a setting."""


@dataclass(frozen=True)
class LatencyPlan:
    """The settings that are timed, and how long.

    Attributes:
        batch_sizes: rows of a forward.
        lengths: `data` for rows as they are served, `max_length` for rows without padding.
        one_thread: on a CPU of several threads, time one thread as well.
        one_first: time one thread before all of them, as others on the machine slow it least.
        seconds: time for all settings together. A setting that has begun is finished with the least forwards, and
            settings that have not begun by then are left out.
        forwards: least and most timed forwards of each model in a setting.
        rows: the data's own rows that are timed, at most; of large batches three batches.
        warm_up: forwards of each model in a setting before the clock starts.
        memory: whether to take the peak memory of a forward too.
    """

    batch_sizes: tuple[int, ...]
    lengths: tuple[Lengths, ...] = ("data", "max_length")
    one_thread: bool = False
    one_first: bool = False
    seconds: float = 60.0
    forwards: tuple[int, int] = (3, 200)
    rows: int = 32
    warm_up: int = 1
    memory: bool = True

    def settings(self, known: Iterable[Lengths], device: torch.device) -> list[ServedSetting]:
        """Return the settings in the order in which they are timed: the data's own lengths first.

        Args:
            known: the lengths that there are inputs of; one that the plan names, or all of them if it names none.
            device: where the models run.
        """
        lengths = [name for name in self.lengths if name in known] or list(known)
        return [
            ServedSetting(size, name, threads)
            for threads in _thread_counts(device, self.one_thread)[:: -1 if self.one_first else 1]
            for name in lengths
            for size in self.batch_sizes
        ]


PLANS = {
    "full": LatencyPlan((1, 8, 32), one_thread=True),
    "quick": LatencyPlan((1, 32), ("data",), seconds=6.0, forwards=(2, 100), rows=12, memory=False),
}
"""Values of `evaluation.efficiency` → plan."""

EXPORT_PLANS = {
    "full": LatencyPlan((1, 32), ("data",), one_thread=True, one_first=True, memory=False),
    "quick": LatencyPlan(
        (1, 32), ("data",), one_thread=True, one_first=True, seconds=6.0, forwards=(2, 50), rows=12, memory=False
    ),
}
"""Values of `export.latency` → plan."""


@dataclass(frozen=True)
class ServedSetting:
    """Rows of a batch, their lengths, and the threads of the CPU (None on a GPU)."""

    batch_size: int
    lengths: Lengths
    threads: int | None


def measure_latency(
    models: Mapping[str, TimedModel], sources: Mapping[Lengths, InputSource], plan: LatencyPlan, device: torch.device
) -> tuple[list[dict[str, Any]], int]:
    """Return the keys `latency` and `left_out` of `efficiency` in `results.json`.

    Models take turns at each batch, so that other load on the machine slows all of them. A setting ends when its part
    of the plan's time is over, after the most forwards, or when the 95 % interval of each model's median is no wider
    than a twentieth of it and each batch was run three times.

    Args:
        models: name → forward, on its device.
        sources: lengths → batches of them.
        plan: settings and time.
        device: where the models run.
    """
    settings, deadline = plan.settings(sources, device), timer() + plan.seconds
    measured: list[dict[str, Any]] = []
    for setting in settings:
        seconds = deadline - timer()
        if seconds <= 0 and measured:
            break
        inputs = sources[setting.lengths](setting.batch_size)[: max(plan.rows // setting.batch_size, _FEWEST)]
        with using_threads(setting.threads):
            times = _take_turns(models, inputs, plan, seconds / (len(settings) - len(measured)))
        latencies = {name: _latency(own, setting.batch_size, len(inputs)) for name, own in times.items()}
        measured.append({**asdict(setting), "tokens": _mean_tokens(inputs), "models": latencies})
    return measured, len(settings) - len(measured)


@torch.inference_mode()
def _take_turns(
    models: Mapping[str, TimedModel], inputs: Sequence[Inputs], plan: LatencyPlan, seconds: float
) -> dict[str, list[float]]:
    """Return the seconds of each model's forwards, batch after batch. `timer` waits for the device."""
    begin, (least, most) = timer(), plan.forwards
    for number in range(plan.warm_up):
        for model in models.values():
            model(inputs[number % len(inputs)])
    times: dict[str, list[float]] = {name: [] for name in models}
    enough = max(_PASSES * len(inputs), _ENOUGH)
    for number in range(most):
        is_known = number >= enough and all(map(_is_median_known, times.values()))
        if number >= least and (is_known or timer() - begin > seconds):
            break
        for name, model in models.items():
            start = timer()
            model(inputs[number % len(inputs)])
            times[name].append(timer() - start)
    return times


def _is_median_known(times: Sequence[float]) -> bool:
    """Return whether the median's 95 % interval is narrow.

    The interval lies between two order statistics, whose ranks come from the binomial distribution: it holds for any
    distribution of times.
    """
    rank = int(binom.ppf(0.025, len(times), 0.5))  # from below and from above; 0 if there are too few
    ordered = np.sort(times)
    return rank > 0 and ordered[-rank] - ordered[rank - 1] <= _NARROW * np.median(ordered)


def _latency(times: Sequence[float], batch_size: int, num_inputs: int) -> dict[str, Any]:
    """Return a model's figures in one setting.

    Args:
        times: seconds of its forwards, batch after batch, again and again.
        batch_size: rows of a batch.
        num_inputs: number of different batches.
    """
    p50, p90, p99 = (np.percentile(times, (50, 90, 99)) * 1e3).round(4).tolist()
    latency = {"p50": p50, "p90": p90, "p99": p99}
    latency |= {"rows_per_second": round(batch_size * len(times) / sum(times), 2), "forwards": len(times)}
    jitter = _jitter([times[i::num_inputs] for i in range(num_inputs)])
    return latency if jitter is None else {**latency, "jitter": round(jitter, 3)}


def _jitter(times: Iterable[Sequence[float]]) -> float | None:
    """Return the 95th percentile of time ÷ median time of the same batch; None if no batch was run three times.

    Args:
        times: of each batch, the seconds of its forwards.
    """
    ratios = [np.divide(own, np.median(own)) for own in times if len(own) >= 3]
    return float(np.percentile(np.concatenate(ratios), 95)) if ratios else None


def _mean_tokens(inputs: Sequence[Inputs]) -> float:
    """Return the mean number of tokens of a row, without padding."""
    tokens = sum(int(batch["attention_mask"].sum()) for batch in inputs)
    return round(tokens / sum(len(batch["input_ids"]) for batch in inputs), 1)


def _thread_counts(device: torch.device, with_one: bool) -> list[int | None]:
    """Return the numbers of threads to time: all of the process first; None on a GPU."""
    if device.type != "cpu":
        return [None]
    threads = torch.get_num_threads()
    return [threads, 1] if with_one and threads > 1 else [threads]


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Within this context, let torch compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
