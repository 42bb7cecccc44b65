"""Datasets from the Hub, a folder or files, through `datasets.load_dataset`, with errors that name a remedy."""

from __future__ import annotations

import re
from pathlib import Path

from datasets import DatasetBuilder, DatasetDict, IterableDatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import try_to_load_from_cache

from distil_nlp.data.local_files import BUILDERS, builder_of_files, builder_of_folder, load_local
from distil_nlp.data.paths import DataPath, files_of_splits, is_single
from distil_nlp.data.row_files import broken_json_line, kind_of_file
from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.utils.names import why_no_path

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_ROWS = ("SchemaInferenceError", "StopIteration", "EmptyDataError", "corresponds to no data")
"""Parts of the errors that `datasets` and pandas raise for an empty file."""


def load_splits(
    path: DataPath, name: str | None = None, revision: str | None = None, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """Return all splits of a dataset.

    Args:
        path: a name on the Hub, a folder in a Hub repository's layout, or one .txt, .json, .jsonl, .csv, .tsv
            or .parquet file (text also compressed, as .jsonl.gz); or several files of one kind, see `files_of_splits`.
        name: the configuration, for datasets that have several.

    Raises:
        UserError: if there is no dataset at that path, the configuration does not exist, or local files are
            inconsistent (a duplicate column, different classes in different files, lines that are no whole row).
    """
    if not is_single(path):
        return _load_files(files_of_splits(path), streaming)
    location = Path(path).expanduser()
    looks_local = location.is_absolute() or path.startswith((".", "~")) or kind_of_file(location) in BUILDERS
    if looks_local and not location.exists():
        raise _no_such_file(path)
    try:
        if location.exists():
            builder = builder_of_files({"train": [location]}) if location.is_file() else None
            return load_local(builder or _builder_of(location, name), streaming)
        return load_dataset(path, name, revision=revision, streaming=streaming)
    except UserError:
        raise
    except Exception as error:  # builders raise whatever their parsers raise
        described = f"{path!r}{f' with the configuration {quoted(name)}' if name else ''}"
        raise _unreadable(error, [location], described) from error


def _builder_of(folder: Path, name: str | None) -> DatasetBuilder:
    """Return the builder of a configuration of a folder; of all its files where the folder itself has that name.

    So `glue` and `glue/mrpc` are both the data of MRPC.
    """
    try:
        return builder_of_folder(folder, name)
    except ValueError:
        if folder.resolve().name != name:
            raise
        return builder_of_folder(folder, None)


def _load_files(files: dict[str, list[str]], streaming: bool) -> DatasetDict | IterableDatasetDict:
    """Return the splits that several local files are.

    Raises:
        UserError: see `load_splits`; or if a file is missing, or they are of several kinds.
    """
    places = {split: [Path(file).expanduser() for file in part] for split, part in files.items()}
    every = [file for part in places.values() for file in part]
    if missing := [file for file in every if not file.is_file()]:
        raise _no_such_file(str(missing[0]))
    try:
        return load_local(builder_of_files(places), streaming)
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(error, every, listed(file.name for file in every)) from error


def _no_such_file(path: str) -> UserError:
    return UserError(
        "data.path", f"a dataset at {path}", "no such file or folder", why=why_no_path(path), fix="check the path"
    )


def _unreadable(error: Exception, locations: list[Path], described: str) -> UserError:
    """Return the error for data that cannot be read, with what is wrong with it as far as that can be told."""
    cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
    reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    remedy = "check the names and the network (or HF_HUB_OFFLINE)"
    if locations[0].exists():
        remedy = (
            "check its files: UTF-8, the same columns of the same types throughout; for a GLUE task a "
            "configuration of its name"
        )
    if any(word in reason for word in _NO_ROWS):
        reason = "no rows"
    elif broken := _broken_line(locations):
        reason, remedy = broken, "mend or drop that line"
    return UserError("data.path", f"a dataset at {described}", reason, why="there is nothing to train on", fix=remedy)


def commit_of_data(path: DataPath, revision: str | None, splits: DatasetDict | IterableDatasetDict) -> str | None:
    """Return the commit that a dataset on the Hub was loaded at; None for local data, or if it is unknown.

    Raises:
        UserError: if it differs from `revision`: offline, `datasets` uses whichever commit is cached.
    """
    if not is_single(path) or Path(path).expanduser().exists():
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


def _broken_line(locations: list[Path]) -> str | None:
    """Return a description of the first line that is no JSON in files of JSON lines; None if there is none."""
    files = [file for place in locations for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    candidates = (file for file in files if file.is_file() and BUILDERS.get(kind_of_file(file)) == "json")
    broken = ((file, broken_json_line(file)) for file in candidates)
    return next((f"{file.name}: {line}" for file, line in broken if line), None)
