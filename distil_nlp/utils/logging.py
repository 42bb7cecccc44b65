"""What a run says: one voice among all processes, and no chatter of the libraries."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import transformers

from distil_nlp.redaction import redact


def is_main_process() -> bool:
    """Whether this process speaks; the launcher sets RANK before anything distributed is set up."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Prints a line from the main process, without tokens and with `~` for the home folder."""
    if is_main_process():
        print(redact(text), flush=True)


def redact_logs() -> None:
    """From here on the libraries' log records, too, have no tokens and `~` for the home folder."""
    logging.setLogRecordFactory(_quotable_record)


def _quotable_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    with suppress(TypeError, ValueError, KeyError):  # arguments that do not fit: logging complains of them later
        record.msg, record.args = redact(record.getMessage()), ()
    return record


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
