"""Failures during a run as user errors: memory, disk, permissions, data that cannot be parsed."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from distil_nlp.errors import UserError

if TYPE_CHECKING:
    from transformers import TrainingArguments

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not be that large here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "access is not allowed",
    errno.EPERM: "access is not allowed",
    errno.EIO: "the disk fails",
    errno.ENAMETOOLONG: "a name is too long",
}
_DISK_TEXT = re.compile(r"os error (\d+)|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+")
"""Messages of safetensors and torch.save, which raise no OSError, for a file that could not be written."""
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA out of memory|CUBLAS_STATUS_AL")
_UNREADABLE = (
    "UnicodeDecodeError",
    "ArrowInvalid",
    "ParserError",
    "EmptyDataError",
    "CastError",
    "DatasetGenerationError",
)
"""Exceptions of the parsers that `datasets` uses."""
_ENDED_WORKERS = {
    "training.dataloader_num_workers": re.compile(r"DataLoader worker \(pid.*\) (is killed by|exited unexpectedly)"),
    "data.num_proc": re.compile(r"One of the subprocesses has abruptly died"),
}
_WORKER_ERROR = re.compile(r"^Caught (\w+) in DataLoader worker process")


@contextmanager
def enough_memory(args: TrainingArguments, section: str = "training", remedy: str | None = None) -> Iterator[None]:
    """Raise UserError where training runs out of memory, with `remedy` or the batch size to try in the recipe."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        import torch  # which whoever trains has imported; the command line uses this module without it

        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        size, steps = args.per_device_train_batch_size, args.gradient_accumulation_steps
        if remedy is None and size > 1:
            remedy = (
                f"set {section}.per_device_train_batch_size={size // 2} and {section}.gradient_accumulation_steps="
                f"{-(-size * steps // (size // 2))} for the same gradient, or {section}.auto_find_batch_size=true"
            )
        elif remedy is None:
            remedy = f"shorten the rows, or set {section}.gradient_checkpointing=true or {section}.bf16=true"
        raise UserError(
            f"{section}.per_device_train_batch_size",
            "a micro-batch that fits into memory",
            f"{size} rows and no memory left",
            why="what was trained since the last checkpoint is lost",
            fix=remedy,
        ) from error


@contextmanager
def living_workers() -> Iterator[None]:
    """Raise UserError where a process that prepares data was ended from outside."""
    try:
        yield
    except RuntimeError as error:
        ended = next((key for key, pattern in _ENDED_WORKERS.items() if pattern.search(str(error))), None)
        if ended is None:
            raise
        raise UserError(
            ended,
            "processes that prepare data until the end",
            " ".join(str(error).split())[:200],
            why="so ends a process for which the machine has no memory left (Bus error: no shared memory)",
            fix=f"lower {ended}, or the batch, and give the same command again: it carries on from the "
            "last complete checkpoint",
        ) from error


@contextmanager
def writable_disk() -> Iterator[None]:
    """Raise UserError where a file could not be read or written, in this package or in a library."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = _disk_problem(error)
        if problem is None:
            raise
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise UserError(
            None,
            "files that can be read and written",
            f"{file}{problem}",
            why="files that are written in part are not used",
            fix="make room or fix the disk, and give the same command again: it carries on from the last complete "
            "checkpoint",
        ) from error


def _disk_problem(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        return _DISK.get(error.errno or 0)
    match = _DISK_TEXT.search(str(error))
    if match is None:
        return None
    return _DISK.get(int(match[1])) if match[1] else "a file could not be written to the end"


@contextmanager
def readable_data() -> Iterator[None]:
    """Raise UserError where data cannot be parsed.

    A stream is parsed during training, perhaps by a worker of the loader, whose errors arrive as text.
    """
    try:
        yield
    except Exception as error:
        text = str(error).strip()
        worker = _WORKER_ERROR.match(text)
        kind = worker[1] if worker else type(error).__name__
        if worker and kind == "UserError":
            raise UserError(text.rpartition("UserError: ")[2]) from error
        if kind not in _UNREADABLE:
            raise
        reason = text.splitlines()[-1] if worker else f"{kind}: {' '.join(text.split())}"
        raise UserError(
            "data.path",
            "files that can be read to the end",
            reason[:300],
            why="the rows after that place would be lost",
            fix="check its files: UTF-8, whole, the same columns of the same types throughout",
        ) from error
