"""What a run stumbles over when it is under way, in words: memory, disk, the right to write, data nobody can parse."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from transformers import TrainingArguments

from distil_nlp.errors import UserError

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
"""How safetensors and torch.save, which raise no OSError, say that a file could not be written."""
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA out of memory|CUBLAS_STATUS_AL")
_UNREADABLE = (
    "UnicodeDecodeError",
    "ArrowInvalid",
    "ParserError",
    "EmptyDataError",
    "CastError",
    "DatasetGenerationError",
)
"""What the parsers of `datasets` raise."""
_OF_WORKER = re.compile(r"^Caught (\w+) in DataLoader worker process")


@contextmanager
def enough_memory(args: TrainingArguments, section: str = "training", remedy: str | None = None) -> Iterator[None]:
    """Raises UserError, with the batch size to try in that section of the recipe, where training runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
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
            f"{section}.per_device_train_batch_size: expected a micro-batch that fits into memory / got {size} rows "
            f"and no memory left / what was trained since the last checkpoint is lost / {remedy}"
        ) from error


@contextmanager
def writable_disk() -> Iterator[None]:
    """Raises UserError where a file could not be written, whoever wrote it."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        what = _disk_problem(error)
        if what is None:
            raise
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise UserError(
            f"expected files that can be read and written / got: {where}{what} / what is half-written is not taken "
            "for whole / make room or mend it, and give the same command again: it carries on from the last complete "
            "checkpoint"
        ) from error


def _disk_problem(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        return _DISK.get(error.errno)
    found = _DISK_TEXT.search(str(error))
    if found is None:
        return None
    return _DISK.get(int(found[1])) if found[1] else "a file could not be written to the end"


@contextmanager
def readable_data() -> Iterator[None]:
    """Raises UserError where data cannot be parsed, whenever that shows: a stream is parsed while training goes on,
    perhaps by a worker of the loader, whose errors come as text."""
    try:
        yield
    except Exception as error:
        text = str(error).strip()
        worker = _OF_WORKER.match(text)
        kind = worker[1] if worker else type(error).__name__
        if worker and kind == "UserError":
            raise UserError(text.rpartition("UserError: ")[2]) from error
        if kind not in _UNREADABLE:
            raise
        reason = text.splitlines()[-1] if worker else f"{kind}: {' '.join(text.split())}"
        raise UserError(
            f"data.path: expected files that can be read to the end / got: {reason[:300]} / the rows after that place "
            "would be lost / check its files: UTF-8, whole, the same columns of the same types throughout"
        ) from error
