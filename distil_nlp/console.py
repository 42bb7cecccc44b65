"""What a run says: one voice among all processes, and no chatter of the libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import transformers


def is_main_process() -> bool:
    """Whether this process speaks; the launcher sets RANK before anything distributed is set up."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Prints a line from the main process."""
    if is_main_process():
        print(text, flush=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load reports and weight bars of transformers: what is new in a model is said by whoever asked for it."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
