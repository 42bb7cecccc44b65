"""Surroundings of a command that uses torch: freed memory is kept, and processes end their connection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from distil_nlp.utils.memory import keep_freed_memory


@contextmanager
def torch_process() -> Iterator[None]:
    """Set the process up for torch, and disconnect it from the others after success."""
    if not torch.accelerator.is_available():
        keep_freed_memory()
    yield
    _disconnect()


def _disconnect() -> None:
    """End the processes' connection while Python is whole; at the interpreter's end its threads may abort it."""
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # trainers hold themselves, and with them the connection
        distributed.destroy_process_group()
