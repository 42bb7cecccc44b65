"""`Call`: one forward whose signals are captured: the recorder it is meant for, and what has been captured so far.

A model may carry the hooks of several recorders, and run in several threads. What belongs to one forward is therefore
kept neither on a hook nor on the model, but in a context variable: hooks of other recorders, and other threads, do not
see it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)


@dataclass(eq=False)
class Call:
    """One forward.

    Attributes:
        recorder: the `Recorder` whose hooks act in it.
        rows: row sets by name.
        teacher_states: the teacher's states for the projections that take them too.
        length: tokens of each row.
        inputs: of the model, by name.
        precision: the dtype of autocast within the model, around whose forward accelerate puts it; None without.
        counts: how often a module has run, by kind of signal.
        hidden, attention, activations, vocabulary, measured: what was captured, see `Signals`.
    """

    recorder: Any
    rows: Mapping[str, Any]
    teacher_states: Mapping[str, Tensor]
    length: int = 0
    inputs: Mapping[str, Any] = field(default_factory=dict)
    precision: torch.dtype | None = None
    counts: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    hidden: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Any] = field(default_factory=dict)
    activations: dict[int, Tensor] = field(default_factory=dict)
    vocabulary: Any = None
    measured: Any = None


def current_call() -> Call | None:
    """Return the call that runs in this thread, or None."""
    return _CURRENT.get()


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """Within this context, forwards belong to `call`."""
    token = _CURRENT.set(call)
    try:
        yield
    finally:
        _CURRENT.reset(token)
