"""Imports without the garbage collector, which would go through millions of lasting objects again and again."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch and transformers in two thirds of the time: nothing is collected meanwhile, or of it later.

    What is alive when the process ends is left to the system, which saves another second.
    """
    known, was_enabled = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
            atexit.register(gc.freeze)
        if was_enabled:
            gc.enable()
