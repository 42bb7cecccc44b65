"""Interleaved timing: contenders take their steps in turn, each in a process of its own.

Other load on the machine then slows all of them alike, and none shares memory, threads or settings with another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.benchmark import timer

from distil_nlp.errors import UserError
from distil_nlp.utils.memory import LiveBytes, keep_freed_memory

PAUSE = 0.05
"""Seconds between two turns, in which the threads of the last contender go to sleep."""


@dataclass(frozen=True)
class Contender:
    """One of the implementations that are compared: a function that takes steps.

    Attributes:
        run: the function, called in another process as `run(gate, **arguments)`, hence module-level. It calls its
            `StepGate` before the first step and after each.
        arguments: its keyword arguments.
        keep_freed_memory: keep freed memory (`utils.memory.keep_freed_memory`), as `distill` does; else PyTorch's
            default.
        measure_memory: measure the memory of a step; compiled code on the CPU does not show it.
    """

    run: Callable[..., None]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    keep_freed_memory: bool = True
    measure_memory: bool = True


@dataclass
class ContenderResult:
    """The measurements of a contender.

    Attributes:
        seconds: of each counted step.
        peak_mib, held_mib: the most memory in use within a step, and the memory in use between steps, in MiB.
        extra: further values that the contender reported, the latest of each.
        problem: the reason why it did not run, or not to the end.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    held_mib: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def median(self) -> float | None:
        return float(np.median(self.seconds)) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"median_s": self.median, "seconds": [round(value, 5) for value in self.seconds]}
        fields |= {"peak_mib": self.peak_mib, "held_mib": self.held_mib, **self.extra, "problem": self.problem}
        return {name: value for name, value in fields.items() if value is not None}


class StepGate:
    """The contender's end of the connection: `gate()` ends a step and waits for the next."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._start: float | None = None
        self._memory: _StepMemory | None = None

    def __call__(self, **extra: Any) -> None:
        """Send the step's seconds and any extra values, and return when the next step may begin."""
        message: dict[str, Any] = {"extra": extra}
        if self._start is not None:
            message["seconds"] = timer() - self._start
        if self._memory is not None:
            message |= self._memory.stop()
        self._connection.send(message)
        order = self._connection.recv()
        if order == "stop":
            raise _Stopped
        self._memory = _StepMemory() if order == "measure" else None
        self._start = timer()


class _StepMemory:
    """The memory of one step: all that PyTorch allocates on a GPU, the tensors in use on the CPU."""

    def __init__(self):
        self._live = None
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
            self._held = torch.cuda.memory_allocated()
        else:
            self._live = LiveBytes()
            self._live.see_all()
            self._held = self._live.now
            self._live.__enter__()

    def stop(self) -> dict[str, float]:
        if self._live is not None:
            self._live.__exit__(None, None, None)
        peak = self._live.peak if self._live is not None else torch.cuda.max_memory_allocated()
        return {"peak_mib": round(peak / 2**20, 1), "held_mib": round(self._held / 2**20, 1)}


class _Stopped(Exception):
    """Signal that no further step is wanted."""


def run_interleaved(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    warm_up: int = 1,
    threads: int | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, ContenderResult]:
    """Run rounds in each of which every contender takes one step, and then one more round to measure memory.

    A contender that fails is left out of the following rounds, with its problem in its result.
    """
    processes: dict[str, _ContenderProcess] = {}
    results = {name: ContenderResult() for name in contenders}
    try:
        for name, contender in contenders.items():
            log(f"preparing {name}")
            processes[name] = _ContenderProcess(contender, threads)
            processes[name].receive(results[name])
        for number in range(-warm_up, rounds + 1):
            for name, process in processes.items():
                if results[name].problem is None:
                    measure_memory = number == rounds and contenders[name].measure_memory
                    process.step(results[name], counted=0 <= number < rounds, measure_memory=measure_memory)
            log(f"round {number + warm_up + 1} of {rounds + warm_up + 1}")
    finally:
        for process in processes.values():
            process.stop()
    return results


class _ContenderProcess:
    """The process of a contender, as the parent process sees it."""

    def __init__(self, contender: Contender, threads: int | None):
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_run_contender, args=(child, contender, threads), daemon=True)
        self._process.start()
        child.close()

    def receive(self, result: ContenderResult) -> dict[str, Any]:
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            message = {"problem": "its process ended, perhaps for want of memory"}
        result.problem = message.get("problem")
        return message

    def step(self, result: ContenderResult, counted: bool, measure_memory: bool) -> None:
        time.sleep(PAUSE)
        with contextlib.suppress(OSError):  # if it died meanwhile, `receive` notices
            self._connection.send("measure" if measure_memory else "go")
        message = self.receive(result)
        result.extra |= message.get("extra", {})
        if counted and "seconds" in message:
            result.seconds.append(message["seconds"])
        if "peak_mib" in message:
            result.peak_mib, result.held_mib = message["peak_mib"], message["held_mib"]

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.send("stop")
        self._process.join(5)
        self._process.kill()


def _run_contender(connection: Connection, contender: Contender, threads: int | None) -> None:
    """Set the process up alike for all contenders, and run one."""
    datasets.disable_progress_bars()
    if threads:
        torch.set_num_threads(threads)
    if contender.keep_freed_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, for all alike
    try:
        contender.run(StepGate(connection), **contender.arguments)
        connection.send({"problem": "it stopped by itself"})
    except _Stopped:
        pass
    except UserError as error:
        connection.send({"problem": str(error)})
    except ImportError as error:
        connection.send({"problem": f"not installed: {error.name}"})
    except Exception:  # an error of another implementation at today's versions is its result
        connection.send({"problem": traceback.format_exc(limit=-3)})
