"""A run that is killed: `python -m tests.workers.killed SPOT NTH DELAY LOG RECIPE …`.

It runs a recipe. DELAY seconds after it enters SPOT for the NTH time, a process outside its group sends SIGKILL to the
whole group; with NTH 0 it is never killed. The log gets a line whenever a spot is entered or left: the run was killed
within a spot if the last line is `enter`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from transformers import Trainer

from distil_nlp.cli import distill
from distil_nlp.data import sequences as task
from distil_nlp.pipeline import distill as stages
from distil_nlp.pipeline import publication
from distil_nlp.pipeline import students as variants
from distil_nlp.teachers.cache.shards import TeacherCache
from distil_nlp.training import fit
from distil_nlp.training.checkpoints import CheckpointGuard

SPOTS = {
    "tokenising": [(task, "_tokenise")],
    "teacher’s step": [(Trainer, "training_step")],
    "teacher kept": [(fit, "_save")],
    "cache shard": [(TeacherCache, "write")],
    "student’s step": [(Trainer, "training_step")],
    "checkpoint": [(Trainer, "_save_checkpoint")],
    "checkpoint marked": [(CheckpointGuard, "on_save")],
    "student kept": [(fit, "_save")],
    "outputs kept": [(variants, "save_outputs")],
    "results": [(stages, "write_results")],
    "report": [(publication, "write_report")],
}
"""Spots where a run is killed: the names that are patched, in the modules that use them."""


def watch(spot: str, nth: int, delay: float, log: Path) -> None:
    """Patch the names of a spot."""
    count = 0

    def wrapped(call: Callable) -> Callable:
        def watched(*args, **kwargs):
            nonlocal count
            count += 1
            write(log, f"enter/{spot}/{count}")
            if count == nth:
                kill_after(delay)
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                write(log, f"leave/{spot}/{time.perf_counter() - began:.6f}")

        return watched

    for place, name in SPOTS[spot]:
        setattr(place, name, wrapped(getattr(place, name)))


def kill_after(delay: float) -> None:
    """Start a process that kills this one's group after a delay, from a group of its own, so that no lock delays it.

    It is ready before this function returns, and polls the clock without sleeping, because some spots take less than a
    millisecond.
    """
    group = os.getpgid(0)
    ready, signal_ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(signal_ready, b"!")
        until = time.perf_counter() + delay
        while time.perf_counter() < until:
            pass
        os.killpg(group, signal.SIGKILL)
        os._exit(0)
    os.read(ready, 1)


def write(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    spot, nth, delay, log = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    for name in SPOTS if spot == "every" else [spot]:
        watch(name, nth, delay, log)
    sys.exit(distill(sys.argv[5:]))
