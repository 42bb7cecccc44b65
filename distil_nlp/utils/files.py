"""Atomic files, checksums, and a check of links that lead out of a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distil_nlp.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, and rename what is there to `path` at the end: it is there whole or not at all.

    A link of that name is replaced, not followed.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes may write it at once
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to write into, and put it in the place of `path` at the end, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def validate_links(folder: Path) -> None:
    """Raise if a link in a folder leads out of it; the folder itself may be a link.

    Raises:
        UserError: naming the first link that does: files that do not belong to the run would be written or published.
    """
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not _target(path).is_relative_to(root):
            raise UserError(
                str(folder),
                "a folder whose links stay inside",
                f"{path.relative_to(folder)}, which leads to {_target(path)}",
                why="files there would be overwritten or published",
                fix="remove it; the whole folder may be a link",
            )


def _target(link: Path) -> Path:
    """Return the target of a link, or its own text where links go round in a circle."""
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        return Path(os.readlink(link))


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
