"""Running a command: a mistake of the user is one message, and every ending has its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from distil_nlp.errors import Preempted, UserError
from distil_nlp.redaction import redact
from distil_nlp.utils.failures import living_workers, readable_data, writable_disk
from distil_nlp.utils.logging import is_main_process, redact_logs


def run_guarded(run: Callable[[], Path | None]) -> int:
    """Run a command, print the path that it returns as the last line on stdout, and return the exit code.

    Returns:
        0, or 2 for a mistake of the user, which is one message on stderr; 130 after Ctrl-C and 143 after SIGTERM, both
        of which leave checkpoints to continue from.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "─" must not end a finished run
    redact_logs()
    try:
        with writable_disk(), readable_data(), living_workers():
            path = run()
    except KeyboardInterrupt:
        print("interrupted; the same command carries on from the last checkpoint", file=sys.stderr)
        return 130
    except UserError as error:
        if is_main_process():
            print(f"error: {error.for_terminal()}", file=sys.stderr)
        return 2
    except Preempted as preempted:
        if is_main_process():
            print(redact(str(preempted)), file=sys.stderr)
        return 128 + signal.SIGTERM
    if path is not None and is_main_process():
        print(path, flush=True)  # as it was given, for `$(… | tail -1)`: a shell takes no ~ there
    return 0
