"""Atomic files, checksums, JSON files that may be damaged, and a check of links that lead out of a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


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


def weight_checksums(folder: Path) -> dict[str, str]:
    """Return the checksums of a model's safetensors files, by name."""
    return {file.name: checksum(file) for file in sorted(folder.glob("*.safetensors"))}


def altered_files(folder: Path, checksums: Mapping[str, str]) -> list[str]:
    """Return the names of the files that are no longer as these checksums say, or gone."""
    return [name for name, sha in checksums.items() if not (folder / name).is_file() or checksum(folder / name) != sha]


def load_json(path: Path, **needed: type | UnionType) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        needed: types of the keys that it must have.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is cut, empty or something else, in words.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no whole JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__} instead of an object")
    missing = [name for name, kind in needed.items() if not isinstance(value.get(name), kind)]
    if missing:
        raise ValueError(f"no usable {', '.join(missing)}")
    return value


def read_json(path: Path, consequence: str, **needed: type | UnionType) -> dict[str, Any] | None:
    """Return the object in a JSON file of a run; None where there is no file, or one that is damaged, which is said.

    Args:
        consequence: what happens without it, for the message.
        needed: types of the keys that it must have.
    """
    try:
        return load_json(path, **needed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        logger.info(f"{path} cannot be used ({reason}): {consequence}")
        return None
