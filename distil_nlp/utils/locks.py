"""Exclusive claims on a folder, so that two processes never write to one place at once."""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)

LOCK = ".lock"
"""The lock's file in a claimed folder. It names host and process; the lock itself is the kernel's."""
_POLL_SECONDS, _REMIND_SECONDS, _ORPHAN_SECONDS = 0.5, 600.0, 30.0
_NO_LOCKS = (errno.EOPNOTSUPP, errno.ENOLCK)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def claimed(folder: Path, *, wait_for: str | None = None) -> Iterator[None]:
    """Hold a folder, made if it is missing, inside the context; the main process alone claims, others pass.

    The lock is the kernel's (`flock`): it ends with the process, however that ends, so a killed run is started again at
    once. NFS 4 and parallel file systems share it between machines unless they are mounted with locks of their own
    (`local_lock`, `localflock`), where it holds on one machine only. Where `flock` is unknown, a file takes its place:
    it is passed over if its process is gone from this machine, and must be removed by hand if another machine died.
    Where it is known and refused, a line says so, and nothing is locked.

    Args:
        wait_for: what another process may be making here, which is waited for aloud; None refuses at once. A
            folder that cannot be written to is then passed, as there is nothing to make, only to read.

    Raises:
        UserError: if another process holds the folder and is not waited for, or it cannot be written to.
    """
    if not is_main_process():
        yield
        return
    try:
        lock = _acquire(folder, wait_for)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            logger.info(f"{folder} cannot be locked ({error.strerror}): start nothing else that writes there")
        elif wait_for is None or error.errno not in _UNWRITABLE:
            raise UserError(
                None,
                "a folder to write to",
                f"{folder}: {'access is not allowed' if error.errno in _UNWRITABLE else error.strerror}",
                why="nothing can be kept there",
                fix="name another folder",
            ) from error
        yield
        return
    try:
        yield
    finally:
        _remove_empty(folder)
        lock.release()


def _acquire(folder: Path, wait_for: str | None) -> BaseFileLock:
    """Return the lock on a folder once it is held."""
    reminded, began = -math.inf, time.monotonic()
    while True:
        lock = _try(folder)
        if lock is not None:
            return lock
        pid, host = _holder(folder / LOCK)
        is_ending = _is_gone(pid, host) and time.monotonic() - began < _ORPHAN_SECONDS
        if wait_for is None and not is_ending:
            raise _in_use(folder, f"process {pid} on {host}")
        if not is_ending and time.monotonic() - reminded > _REMIND_SECONDS:
            logger.info(f"waiting for {wait_for} in {folder}, which process {pid} on {host} makes")
            reminded = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _try(folder: Path) -> BaseFileLock | None:
    """Return the lock on a folder, or None while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if not path.exists():  # the last holder removed the file after it was opened here
        lock.release()
        return None
    own = str(os.getpid()), socket.gethostname()
    if _holder(path) != own:
        path.write_text("\n".join([*own, ""]))  # as filelock's own marker begins
    return lock


def _holder(path: Path) -> tuple[str, str]:
    """Return (process, host) that hold a lock, by its file."""
    try:
        pid, host, *_ = path.read_text().splitlines()
    except (OSError, ValueError):
        return "?", "an unknown machine"
    return pid, host


def _is_gone(pid: str, host: str) -> bool:
    """Return whether a process of this machine has ended; what it forked may hold its lock a moment longer."""
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        return False
    return False


def _in_use(folder: Path, holder: str) -> UserError:
    return UserError(
        None,
        f"{folder} for this process alone",
        f"a folder that {holder} works in",
        why="both would write the same files",
        fix=f"wait until it ends, or name another folder; if that machine is gone for good, remove {folder / LOCK}",
    )


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a lock that nothing was written into."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()
