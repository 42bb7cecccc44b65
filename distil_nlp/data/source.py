"""Datasets from the Hub, a folder or files, through `datasets.load_dataset`, with errors that say what to do."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import datasets
from datasets import DatasetDict, IterableDatasetDict, load_dataset
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


def load_splits(
    path: str, name: str | None = None, revision: str | None = None, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """All splits of a dataset.

    Args:
        path: a name on the Hub, a folder in a Hub repository's layout, or one .txt, .json, .jsonl, .csv, .tsv
            or .parquet file.
        name: the configuration, for datasets that have several.

    Raises:
        UserError: if there is nothing at that path, or the configuration does not exist.
    """
    place = Path(path).expanduser()
    looks_local = place.is_absolute() or path.startswith((".", "~")) or place.suffix.lower() in _BUILDERS
    if looks_local and not place.exists():
        raise UserError(f"data.path: expected a dataset at {path} / got no such file or folder / check the path")
    options: dict[str, Any] = {"streaming": streaming}
    try:
        if place.is_file():
            return _load_file(place, options)
        if place.is_dir():
            return load_dataset(str(place), name, cache_dir=_cache_of(place), **options)
        return load_dataset(path, name, revision=revision, **options)
    except UserError:
        raise
    except Exception as error:  # builders raise whatever their parsers raise
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        remedy = "check the names and the network (or HF_HUB_OFFLINE)"
        if place.exists():
            remedy = "check its files: UTF-8, the same columns throughout; for a GLUE task a configuration of its name"
        raise UserError(
            f"data.path: expected a dataset at {path!r}{f' with the configuration {name!r}' if name else ''} / got: "
            f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]} / there is nothing to train on / {remedy}"
        ) from error


def commit_of_data(path: str, revision: str | None, splits: DatasetDict | IterableDatasetDict) -> str | None:
    """The commit that a dataset on the Hub was loaded at; None for local data, or where nothing tells.

    Raises:
        UserError: if it is another than `revision`: offline, `datasets` takes whichever commit it has.
    """
    if Path(path).expanduser().exists():
        return None
    files = [one["filename"] for rows in splits.values() for one in getattr(rows, "cache_files", ())]
    card = try_to_load_from_cache(path, "README.md", revision=revision, repo_type="dataset")  # which streams read too
    found = [Path(one).parent.name for one in (*files, card) if isinstance(one, str)]
    commit = next((name for name in found if _COMMIT.fullmatch(name)), None)
    if commit and revision and _COMMIT.fullmatch(revision) and commit != revision:
        raise UserError(
            f"data.revision: expected {path} at {revision} / got {commit}, which is what the cache has / other rows "
            "might be trained on / unset HF_HUB_OFFLINE to download it"
        )
    return commit


def _cache_of(folder: Path) -> str:
    """A cache for this state of a local folder: `datasets` takes edited files for the cached ones where a README.md
    lists them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    state = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr((str(folder.resolve()), state)).encode()).hexdigest()[:16]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"local-{digest}")


def _load_file(file: Path, options: dict[str, Any]) -> DatasetDict | IterableDatasetDict:
    builder = _BUILDERS.get(file.suffix.lower())
    if builder is None:
        raise UserError(
            f"data.path: expected a file of {', '.join(_BUILDERS)} / got {file.name} / its format is unknown / "
            "convert it, or give a folder"
        )
    if builder == "csv":
        options |= {"keep_default_na": False, "sep": "\t" if file.suffix.lower() == ".tsv" else ","}
    return load_dataset(builder, data_files=str(file), **options)
