"""Versions, device, memory and commit of the running process."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from distil_nlp.utils.installed import package_versions

REPORTED_PACKAGES = ("distil-nlp", "torch", "transformers", "accelerate", "datasets", "evaluate", "numpy")


def environment(seed: int, device: torch.device, processes: int) -> dict[str, Any]:
    """Return the versions, device, commit and seed that a reader needs to reproduce a run."""
    return {
        "versions": {"python": platform.python_version()} | package_versions(REPORTED_PACKAGES),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "commit": commit_of_checkout(),
        "seed": seed,
    }


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory of this process in MiB: allocated on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def cpu_cores() -> int:
    """Return the number of CPU cores that this process may use, as a job queue or `taskset` leaves them."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the processor and number of cores of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {os.cpu_count()} cores"


def commit_of_checkout() -> str | None:
    """Return the commit of this package's checkout, if it runs from one."""
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
