"""Datasets from the Hub, a folder or files, through `datasets.load_dataset`, with errors that name a remedy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import datasets
import pyarrow.parquet
from datasets import (
    BuilderConfig,
    ClassLabel,
    DatasetBuilder,
    DatasetDict,
    Features,
    IterableDatasetDict,
    load_dataset,
    load_dataset_builder,
)
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules.csv.csv import CsvConfig
from huggingface_hub import try_to_load_from_cache

from distil_nlp.data.row_files import COMPRESSIONS, broken_json_line, is_text_file, kind_of_file, quoting_of
from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.utils.bounded_yaml import check_card
from distil_nlp.utils.names import why_no_path

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUILDERS = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_CELLS = {"keep_default_na": False, "na_values": [""]}
"""Options for CSV: an empty cell is a missing value; the strings None, NA and null are text."""
_STREAMED_LINES = 1_000_000
"""Lines of each streamed file that are looked at before the first is read."""
_NO_ROWS = ("SchemaInferenceError", "StopIteration", "EmptyDataError", "corresponds to no data")
"""Parts of the errors that `datasets` and pandas raise for an empty file."""


def load_splits(
    path: str, name: str | None = None, revision: str | None = None, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """Return all splits of a dataset.

    Args:
        path: a name on the Hub, a folder in a Hub repository's layout, or one .txt, .json, .jsonl, .csv, .tsv
            or .parquet file (text also compressed, as .jsonl.gz).
        name: the configuration, for datasets that have several.

    Raises:
        UserError: if there is no dataset at that path, the configuration does not exist, or local files are
            inconsistent (a duplicate column, different classes in different files, lines that are no whole row).
    """
    location = Path(path).expanduser()
    looks_local = location.is_absolute() or path.startswith((".", "~")) or kind_of_file(location) in _BUILDERS
    if looks_local and not location.exists():
        raise UserError(
            "data.path",
            f"a dataset at {path}",
            "no such file or folder",
            why=why_no_path(path),
            fix="check the path",
        )
    try:
        if location.exists():
            return _load_local(location, name, streaming)
        return load_dataset(path, name, revision=revision, streaming=streaming)
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
        elif broken := _broken_line(location):
            reason, remedy = broken, "mend or drop that line"
        raise UserError(
            "data.path",
            f"a dataset at {path!r}{f' with the configuration {quoted(name)}' if name else ''}",
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


def _broken_line(location: Path) -> str | None:
    """Return a description of the first line that is no JSON in files of JSON lines; None if there is none."""
    files = sorted(location.rglob("*")) if location.is_dir() else [location]
    candidates = (file for file in files if file.is_file() and _BUILDERS.get(kind_of_file(file)) == "json")
    broken = ((file, broken_json_line(file)) for file in candidates)
    return next((f"{file.name}: {line}" for file, line in broken if line), None)


def _cache_of(location: Path) -> str:
    """Return the cache folder for the current state of a local folder or file.

    Needed because `datasets` does not notice edited files that are listed in a README.md, nor other options for CSV.
    """
    files = sorted(file for file in location.rglob("*") if file.is_file()) or [location]
    state = [(str(file.relative_to(location)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr((str(location.resolve()), state, _CELLS, _STREAMED_LINES)).encode()).hexdigest()[:16]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"local-{digest}")


def _load_local(location: Path, name: str | None, streaming: bool) -> DatasetDict | IterableDatasetDict:
    builder = _builder_of_file(location) if location.is_file() else _builder_of_folder(location, name)
    for option, value in _CELLS.items():
        if hasattr(builder.config, option):
            setattr(builder.config, option, value)
    files = {split: [Path(f) for f in files] for split, files in (builder.config.data_files or {}).items()}
    if streaming:
        _check_files(builder, files, _STREAMED_LINES)
        return builder.as_streaming_dataset()
    if Path(builder.cache_dir).is_dir():  # read and checked by an earlier run
        return builder.as_dataset()
    rows = _check_files(builder, files)
    builder.download_and_prepare()
    splits = builder.as_dataset()
    for split, expected in rows.items():
        _check_count(files[split], expected, len(splits[split]))
    return splits


def _builder_of_file(file: Path) -> DatasetBuilder:
    kind = kind_of_file(file)
    if kind not in _BUILDERS:
        raise UserError(
            "data.path",
            f"a file of {', '.join(_BUILDERS)}, or of one of them with {', '.join(COMPRESSIONS)}",
            file.name,
            why="its format is unknown",
            fix="convert it, or name a folder",
        )
    options = {"sep": "\t"} if kind == ".tsv" else {}
    return load_dataset_builder(_BUILDERS[kind], data_files=str(file), cache_dir=_cache_of(file), **options)


def _builder_of_folder(folder: Path, name: str | None) -> DatasetBuilder:
    for card in (folder / "README.md", folder / datasets.config.REPOYAML_FILENAME):
        if card.is_file():
            check_card(card)
    return load_dataset_builder(str(folder), name, cache_dir=_cache_of(folder))


def _check_files(builder: DatasetBuilder, files: dict[str, list[Path]], limit: int | None = None) -> dict[str, int]:
    """Check local files before they are read, and set the quoting of CSV; return the rows of each split, if counted.

    A README.md that says how to read the files is believed.
    """
    config, every = builder.config, [file for part in files.values() for file in part]
    _check_classes(every)
    if not isinstance(config, CsvConfig) or _is_described(config) or not all(map(is_text_file, every)):
        return {}
    config.quoting, rows = quoting_of(every, config.sep, limit)
    return {split: sum(rows[file] for file in part) for split, part in files.items()}


def _is_described(config: CsvConfig) -> bool:
    """Return whether a README.md says how its CSV files are read, apart from the separator."""
    ours = {"sep", "delimiter", "features", "chunksize", *_CELLS, *(field.name for field in fields(BuilderConfig))}
    return len(config.sep) != 1 or any(
        getattr(config, field.name) != field.default for field in fields(config) if field.name not in ours
    )


def _check_count(files: list[Path], expected: int, got: int) -> None:
    """Raise UserError if other rows were read than the files have."""
    if got != expected:
        raise UserError(
            "data.path",
            f"the {expected:,} rows of {', '.join(file.name for file in files[:3])}",
            f"{got:,}",
            why="lines were lost or cut when they were read",
            fix="write the files anew with pandas' to_csv, or as JSON lines",
        )


def _check_classes(files: Iterable[Path]) -> None:
    """Raise UserError for Parquet files with different classes: ids would be decoded with the names of the first."""
    classes: dict[str, tuple[list[str], Path]] = {}
    for file in files:
        if file.suffix.lower() != ".parquet" or not file.is_file():
            continue
        for column, feature in Features.from_arrow_schema(pyarrow.parquet.read_schema(file)).items():
            if not isinstance(feature, ClassLabel):
                continue
            names, first = classes.setdefault(column, (feature.names, file))
            if names != feature.names:
                raise UserError(
                    "data.path",
                    f"the classes of {quoted(column)} as in {first.name} ({listed(names)})",
                    f"{listed(feature.names)} in {file.name}",
                    why="class ids would be decoded with the wrong names",
                    fix="cast the columns to one order and write the files again",
                )
