"""`data.path`: one path, several files, or the files of each split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.data_files import SPLIT_KEYWORDS

from distil_nlp.data.local_files import BUILDERS
from distil_nlp.data.row_files import kind_of_file

if TYPE_CHECKING:
    from typing_extensions import TypeIs

DataPath = str | list[str] | dict[str, str | list[str]]
"""A name on the Hub, a folder or a file; several files; or split → files."""

_WORD_BREAKS = re.compile(r"[-._ 0-9]+")


def is_single(path: DataPath) -> TypeIs[str]:
    """Return True for one path, as opposed to several files."""
    return isinstance(path, str)


def all_paths(path: DataPath) -> list[str]:
    """Return every path of a `data.path`."""
    if isinstance(path, str):
        return [path]
    if isinstance(path, Mapping):
        return [one for part in path.values() for one in ([part] if isinstance(part, str) else part)]
    return list(path)


def files_of_splits(path: list[str] | dict[str, str | list[str]]) -> dict[str, list[str]]:
    """Return split → files.

    A list is divided by the names of its files, as `datasets` divides a folder: `tickets-test.csv` is of the test
    split. Files that name no split are training files.
    """
    if isinstance(path, Mapping):
        return {split: [part] if isinstance(part, str) else list(part) for split, part in path.items()}
    splits: dict[str, list[str]] = {}
    for file in path:
        splits.setdefault(_split_of(file), []).append(file)
    return splits


def dataset_name(path: DataPath) -> str:
    """Return a short name of the data: a file's or folder's without its ending, the first of several."""
    first = Path(all_paths(path)[0])
    return first.name.partition(".")[0] if kind_of_file(first) in BUILDERS else first.name


def _split_of(file: str) -> str:
    words = _WORD_BREAKS.split(Path(file).name.lower())
    return next((str(split) for split, known in SPLIT_KEYWORDS.items() if set(known) & set(words)), "train")
