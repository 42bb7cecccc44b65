"""Two processes over gloo, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.helpers import ROOT


def launch(*arguments: str) -> subprocess.Popen:
    """Start torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def torchrun(*arguments: str) -> str:
    """Run two processes, and return their output."""
    started = launch("--standalone", "--nproc_per_node", "2", *arguments)
    stdout, stderr = started.communicate()
    assert started.returncode == 0, stderr[-3000:]
    return stdout
