"""The package's logger: lines on stdout from the main process alone, without secrets.

`logging.getLogger("distil_nlp").setLevel(logging.WARNING)` silences it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from distil_nlp.redaction import redact

_PACKAGE = "distil_nlp"


def is_main_process() -> bool:
    """Return whether this process writes messages; launchers set RANK before anything distributed is set up."""
    return os.environ.get("RANK", "0") == "0"


class _StdoutHandler(logging.StreamHandler):
    """Writes to the `sys.stdout` of the moment, as `print` does: notebooks and tests replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's own would keep a stream

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> NoReturn:
        """Raise the error, as `print` does: a full disk or a closed pipe ends the command as it always did."""
        raise  # logging calls this from within its `except`


class _Formatter(logging.Formatter):
    """Plain text; tracebacks are redacted too."""

    def formatException(self, ei: Any) -> str:
        return redact(super().formatException(ei))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, which logs on the main process only and redacts what it logs.

    Not accelerate's `get_logger`: that raises before `PartialState` is initialised, as in a recipe's checks, a report
    or a notebook, and puts `[RANK 0]` in front of every line.

    Args:
        name: the module's `__name__`.
    """
    _set_up_package_logger()
    logger = logging.getLogger(name)
    logger.addFilter(_filter)  # of this logger: a handler's own would not hold for the handlers of a user
    return logger


def _filter(record: logging.LogRecord) -> bool:
    """Return whether the process logs, and redact the record for all handlers."""
    if not is_main_process():
        return False
    _redact(record)
    return True


def _redact(record: logging.LogRecord) -> None:
    with suppress(TypeError, ValueError, KeyError):  # arguments that do not fit: logging reports them later
        record.msg, record.args = redact(record.getMessage()), ()


def _set_up_package_logger() -> None:
    """Attach a handler to the package's logger once, unless the user attached another before."""
    package = logging.getLogger(_PACKAGE)
    if package.handlers:
        return
    handler = _StdoutHandler()
    handler.setFormatter(_Formatter())
    package.addHandler(handler)
    package.propagate = False  # handlers of the root logger would show each line a second time
    if package.level == logging.NOTSET:
        package.setLevel(logging.INFO)


def redact_logs() -> None:
    """Redact the log records of all libraries from here on: no tokens, and `~` for the home folder."""
    logging.setLogRecordFactory(_redacted_record)


def _redacted_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    _redact(record)
    return record


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the load reports and weight bars of transformers: the caller reports new weights itself."""
    import transformers  # takes seconds; the command line logs without it

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
