"""`results.json`: the one hand-over between measuring and showing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from distil_nlp.errors import UserError
from distil_nlp.privacy import without_home

SCHEMA_VERSION = 1
_PACKAGES = ("distil-nlp", "torch", "transformers", "accelerate", "datasets", "evaluate", "numpy")


def environment(seed: int, device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, device, commit and seed: what a reader needs to run it again."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "commit": _commit(),
        "seed": seed,
    }


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory of this process: allocated on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def write_atomically(path: Path, content: str | bytes) -> None:
    """A file that is there whole or not at all; a link of that name is replaced, not followed."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes may write it at once
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def refuse_links_out(folder: Path) -> None:
    """The folder itself may be a link; nothing in it may lead somewhere else.

    Raises:
        UserError: naming the first link that does: what is written or published there would not be the run's.
    """
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not _target(path).is_relative_to(root):
            raise UserError(
                f"{folder}: expected a folder whose links stay inside / got {path.relative_to(folder)}, which leads to "
                f"{_target(path)} / files there would be overwritten or published / remove it; the whole folder may "
                "be a link"
            )


def _target(link: Path) -> Path:
    """Where a link leads; one that leads round in a circle, to its own text."""
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        return Path(os.readlink(link))


def checksum(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes `results.json`; NaN and infinity, which JSON does not know, become null, and the home folder `~`."""
    told = without_home(finite({**results, "schema_version": SCHEMA_VERSION}))
    write_atomically(path, json.dumps(told, indent=2) + "\n")


def finite(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results as `results.json` has them."""
    return json.loads(json.dumps(results, default=str), parse_constant=lambda _: None)


def spread(seeds: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """A metric's value with each seed. A correlation that is not a number, because all predictions are the same, counts
    as 0 in median, minimum and maximum."""
    counted = [0.0 if math.isnan(value) else value for value in values]
    found = {"median": median(counted), "minimum": min(counted), "maximum": max(counted)}
    return {"seeds": seeds, "values": values, **found}


def read_results(path: Path) -> dict[str, Any]:
    """What `write_results` wrote; {} where a file cannot be read as that."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {os.cpu_count()} cores"


def _commit() -> str | None:
    """The commit of this package's own checkout, if it runs from one."""
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
