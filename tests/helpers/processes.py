"""Two processes over gloo: started by torchrun, or, much sooner, forked from a server that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import TCPStore

from tests.helpers import ROOT
from tests.helpers.device import use_test_device

PROCESSES = 2
_PRELOADED = [
    "distil_nlp.cli",
    "distil_nlp.pipeline.distill",
    "distil_nlp.study.prepare",
    "pytest",
    "tests.helpers.tiny",
]
"""Modules that the server has imported: those of a study's processes, which it forks too, and what most tests need."""


def launch(*arguments: str) -> subprocess.Popen:
    """Start torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def torchrun(*arguments: str) -> str:
    """Run two processes by torchrun, and return their output."""
    started = launch("--standalone", "--nproc_per_node", str(PROCESSES), *arguments)
    stdout, stderr = started.communicate()
    assert started.returncode == 0, stderr[-3000:]
    return stdout


def forked_pair(*arguments: str) -> str:
    """Run a script, or a module after `-m`, as torchrun does, and return what both printed; half a minute sooner."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=5))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sizes = {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(PROCESSES)]
        processes = [
            context.Process(
                target=_run, args=(arguments, {**os.environ, **place, **sizes, **_rank(rank)}, str(logs[rank]))
            )
            for rank in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        _wait(processes)
        printed, errors = ("".join(log.with_suffix(kind).read_text() for log in logs) for kind in (".out", ".err"))
    assert [process.exitcode for process in processes] == [0] * PROCESSES, errors[-3000:]
    return printed


def _rank(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}


def _wait(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Wait for all processes; once one has failed, end the others, which may wait for it."""
    running = {process.sentinel: process for process in processes}
    while running:
        for sentinel in multiprocessing.connection.wait([*running]):
            ended = running.pop(sentinel)  # type: ignore[call-overload]
            ended.join()
            if ended.exitcode != 0:
                for other in running.values():
                    other.terminate()


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """Run a script or a module in this process, as Python's command line does."""
    os.environ.update(environment)
    os.chdir(ROOT)
    for descriptor, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{kind}", os.O_WRONLY | os.O_CREAT), descriptor)
    torch.set_num_threads(1)
    use_test_device()
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")
