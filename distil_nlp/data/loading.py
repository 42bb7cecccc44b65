"""Datasets from the Hub, a folder or files, through `datasets.load_dataset`, with errors that name a remedy."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
from datasets import ClassLabel, DatasetDict, Features, IterableDatasetDict, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import try_to_load_from_cache

from distil_nlp.errors import UserError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUILDERS = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_CSV = (".csv", ".tsv")
_CELLS = {"keep_default_na": False, "na_values": [""]}
"""Options for CSV: an empty cell is a missing value; the strings None, NA and null are text."""
_NO_ROWS = ("SchemaInferenceError", "StopIteration", "EmptyDataError", "corresponds to no data")
"""Parts of the errors that `datasets` and pandas raise for an empty file."""


def load_splits(
    path: str, name: str | None = None, revision: str | None = None, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """Return all splits of a dataset.

    Args:
        path: a name on the Hub, a folder in a Hub repository's layout, or one .txt, .json, .jsonl, .csv, .tsv
            or .parquet file.
        name: the configuration, for datasets that have several.

    Raises:
        UserError: if there is no dataset at that path, the configuration does not exist, or local files are
            inconsistent (a duplicate column, different classes in different files).
    """
    location = Path(path).expanduser()
    looks_local = location.is_absolute() or path.startswith((".", "~")) or location.suffix.lower() in _BUILDERS
    if looks_local and not location.exists():
        raise UserError(
            "data.path",
            f"a dataset at {path}",
            "no such file or folder",
            fix="check the path",
        )
    options: dict[str, Any] = {"streaming": streaming}
    try:
        if location.is_file():
            return _load_file(location, options)
        if location.is_dir():
            return _load_folder(location, name, streaming)
        return load_dataset(path, name, revision=revision, **options)
    except UserError:
        raise
    except Exception as error:  # builders raise whatever their parsers raise
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
        remedy = "check the names and the network (or HF_HUB_OFFLINE)"
        if location.exists():
            remedy = (
                "check its files: UTF-8, the same columns of the same types throughout; for a GLUE task a "
                "configuration of its name"
            )
        if any(word in reason for word in _NO_ROWS):
            reason = "no rows"
        raise UserError(
            "data.path",
            f"a dataset at {path!r}{f' with the configuration {name!r}' if name else ''}",
            reason,
            why="there is nothing to train on",
            fix=remedy,
        ) from error


def commit_of_data(path: str, revision: str | None, splits: DatasetDict | IterableDatasetDict) -> str | None:
    """Return the commit that a dataset on the Hub was loaded at; None for local data, or if it is unknown.

    Raises:
        UserError: if it differs from `revision`: offline, `datasets` uses whichever commit is cached.
    """
    if Path(path).expanduser().exists():
        return None
    files = [file["filename"] for rows in splits.values() for file in getattr(rows, "cache_files", ())]
    card = try_to_load_from_cache(path, "README.md", revision=revision, repo_type="dataset")  # read for streams too
    folders = [Path(file).parent.name for file in (*files, card) if isinstance(file, str)]
    commit = next((name for name in folders if _COMMIT.fullmatch(name)), None)
    if commit and revision and _COMMIT.fullmatch(revision) and commit != revision:
        raise UserError(
            "data.revision",
            f"{path} at {revision}",
            f"{commit}, the commit in the cache",
            why="the student might be trained on different rows",
            fix="unset HF_HUB_OFFLINE to download it",
        )
    return commit


def _cache_of(folder: Path) -> str:
    """Return the cache folder for the current state of a local folder.

    Needed because `datasets` does not notice edited files that are listed in a README.md.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    state = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr((str(folder.resolve()), state, _CELLS)).encode()).hexdigest()[:16]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"local-{digest}")


def _load_file(file: Path, options: dict[str, Any]) -> DatasetDict | IterableDatasetDict:
    builder = _BUILDERS.get(file.suffix.lower())
    if builder is None:
        raise UserError(
            "data.path",
            f"a file of {', '.join(_BUILDERS)}",
            file.name,
            why="its format is unknown",
            fix="convert it, or name a folder",
        )
    if builder == "csv":
        options |= {**_CELLS, "sep": "\t" if file.suffix.lower() == ".tsv" else ","}
    _check_columns([file])
    return load_dataset(builder, data_files=str(file), **options)


def _load_folder(folder: Path, name: str | None, streaming: bool) -> DatasetDict | IterableDatasetDict:
    builder = load_dataset_builder(str(folder), name, cache_dir=_cache_of(folder))
    files = [Path(file) for split in (builder.config.data_files or {}).values() for file in split]
    _check_columns(file for file in files if file.is_file())
    for option, value in _CELLS.items():
        if hasattr(builder.config, option):
            setattr(builder.config, option, value)
    if streaming:
        return builder.as_streaming_dataset()
    builder.download_and_prepare()
    return builder.as_dataset()


def _check_columns(files: Iterable[Path]) -> None:
    """Raise UserError for a duplicate column in a CSV file, or for Parquet files with different classes.

    `datasets` would silently read one of the columns, and decode all class ids with the names of the first file.
    """
    classes: dict[str, tuple[list[str], Path]] = {}
    for file in files:
        if file.suffix.lower() in _CSV:
            _check_header(file)
        if file.suffix.lower() != ".parquet":
            continue
        for column, feature in Features.from_arrow_schema(pyarrow.parquet.read_schema(file)).items():
            if not isinstance(feature, ClassLabel):
                continue
            names, first = classes.setdefault(column, (feature.names, file))
            if names != feature.names:
                raise UserError(
                    "data.path",
                    f"the classes of {column!r} as in {first.name} ({', '.join(names[:10])})",
                    f"{', '.join(feature.names[:10])} in {file.name}",
                    why="class ids would be decoded with the wrong names",
                    fix="cast the columns to one order and write the files again",
                )


def _check_header(file: Path) -> None:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        header = next(csv.reader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ","), [])
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        raise UserError(
            "data.path",
            f"each column once in {file.name}",
            f"{', '.join(map(repr, duplicates))} more than once",
            why="it is undefined which of them is read",
            fix="rename or drop one",
        )
