"""Contenders that take their steps in turn, each in a process of its own.

What else the machine does then slows all alike, and none shares memory, threads or settings with another.
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
"""Seconds between two turns, in which the threads of the last one go to sleep."""


@dataclass(frozen=True)
class Contender:
    """What takes part: a function that calls its `Turns` before the first step and after each.

    Attributes:
        play: module-level, since it is called in another process as `play(turns, **arguments)`.
        keeps_memory: whether freed memory is kept (`keep_freed_memory`), as `distill` does; else PyTorch's default.
        tells_memory: whether the memory of a step is measured; compiled code on the CPU does not show it.
    """

    play: Callable[..., None]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    keeps_memory: bool = True
    tells_memory: bool = True


@dataclass
class ContenderResult:
    """What a contender did.

    Attributes:
        seconds: of each counted step.
        peak_mib, held_mib: the most memory in use within a step, and what is in use between steps.
        told: what else it said, by its last word on each.
        problem: why it did not take part, or not to the end.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    held_mib: float | None = None
    told: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def median(self) -> float | None:
        return float(np.median(self.seconds)) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        found = {"median_s": self.median, "seconds": [round(one, 5) for one in self.seconds]}
        found |= {"peak_mib": self.peak_mib, "held_mib": self.held_mib, **self.told, "problem": self.problem}
        return {name: value for name, value in found.items() if value is not None}


class StepGate:
    """A contender's side: `turns()` ends a step, and waits for the next."""

    def __init__(self, line: Connection):
        self._line = line
        self._began: float | None = None
        self._watch: _StepMemory | None = None

    def __call__(self, **told: Any) -> None:
        """Tells how long the step took and what else is to be told, and returns when the next may begin."""
        said: dict[str, Any] = {"told": told}
        if self._began is not None:
            said["seconds"] = timer() - self._began
        if self._watch is not None:
            said |= self._watch.end()
        self._line.send(said)
        order = self._line.recv()
        if order == "stop":
            raise _Stopped
        self._watch = _StepMemory() if order == "watch" else None
        self._began = timer()


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

    def end(self) -> dict[str, float]:
        if self._live is not None:
            self._live.__exit__(None, None, None)
        peak = self._live.peak if self._live is not None else torch.cuda.max_memory_allocated()
        return {"peak_mib": round(peak / 2**20, 1), "held_mib": round(self._held / 2**20, 1)}


class _Stopped(Exception):
    """The contest is over."""


def run_interleaved(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    warm_up: int = 1,
    threads: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, ContenderResult]:
    """Plays some rounds, in each of which every contender takes one step, and then one more for its memory.

    A contender that fails is left out, with its problem in its score.
    """
    players: dict[str, _ContenderProcess] = {}
    scores = {name: ContenderResult() for name in contenders}
    try:
        for name, contender in contenders.items():
            say(f"preparing {name}")
            players[name] = _ContenderProcess(contender, threads)
            players[name].wait(scores[name])
        for number in range(-warm_up, rounds + 1):
            for name, player in players.items():
                if scores[name].problem is None:
                    watched = number == rounds and contenders[name].tells_memory
                    player.step(scores[name], counted=0 <= number < rounds, watched=watched)
            say(f"round {number + warm_up + 1} of {rounds + warm_up + 1}")
    finally:
        for player in players.values():
            player.end()
    return scores


class _ContenderProcess:
    """The other side: a contender's process."""

    def __init__(self, contender: Contender, threads: int | None):
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_run_contender, args=(theirs, contender, threads), daemon=True)
        self._process.start()
        theirs.close()

    def wait(self, score: ContenderResult) -> dict[str, Any]:
        try:
            said = self._line.recv()
        except (EOFError, OSError):
            said = {"problem": "its process ended, perhaps for want of memory"}
        score.problem = said.get("problem")
        return said

    def step(self, score: ContenderResult, counted: bool, watched: bool) -> None:
        time.sleep(PAUSE)
        with contextlib.suppress(OSError):  # if it died meanwhile, it says so by saying nothing
            self._line.send("watch" if watched else "go")
        said = self.wait(score)
        score.told |= said.get("told", {})
        if counted and "seconds" in said:
            score.seconds.append(said["seconds"])
        if "peak_mib" in said:
            score.peak_mib, score.held_mib = said["peak_mib"], said["held_mib"]

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._line.send("stop")
        self._process.join(5)
        self._process.kill()


def _run_contender(line: Connection, contender: Contender, threads: int | None) -> None:
    """What runs in a contender's process."""
    datasets.disable_progress_bars()
    if threads:
        torch.set_num_threads(threads)
    if contender.keeps_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, for all alike
    try:
        contender.play(StepGate(line), **contender.arguments)
        line.send({"problem": "it stopped by itself"})
    except _Stopped:
        pass
    except UserError as error:
        line.send({"problem": str(error)})
    except ImportError as error:
        line.send({"problem": f"not installed: {error.name}"})
    except Exception:  # whatever a peer throws at today's versions is its result
        line.send({"problem": traceback.format_exc(limit=-3)})
