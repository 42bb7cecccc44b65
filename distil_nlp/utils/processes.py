"""What one process finds for all of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

_Found = TypeVar("_Found")


def from_main_process(find: Callable[[], _Found]) -> _Found:
    """Return what the main process finds, in every process; all of them must call this."""
    state = PartialState()
    found = [find() if state.is_main_process else None]
    if state.num_processes > 1:
        broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]  # which is the main process's
