"""Local files of rows, read by `datasets` with options that lose no row, and checked."""

from __future__ import annotations

import hashlib
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
    load_dataset_builder,
)
from datasets.packaged_modules.csv.csv import CsvConfig

from distil_nlp.data.row_files import COMPRESSIONS, is_text_file, kind_of_file, quoting_of
from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.utils.bounded_yaml import check_card

BUILDERS = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
"""Ending of a file → the builder of `datasets` that reads it."""
_CELLS = {"keep_default_na": False, "na_values": [""]}
"""Options for CSV: an empty cell is a missing value; the strings None, NA and null are text."""
_STREAMED_LINES = 1_000_000
"""Lines of each streamed file that are looked at before the first is read."""


def load_local(builder: DatasetBuilder, streaming: bool) -> DatasetDict | IterableDatasetDict:
    """Return the splits of local files, each of which has as many rows as it has lines or records.

    Raises:
        UserError: for lines that are no whole row, different classes in different files, or lost rows.
    """
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


def builder_of_files(splits: dict[str, list[Path]]) -> DatasetBuilder:
    """Return the builder of files of one kind.

    Args:
        splits: split → its files, which exist.

    Raises:
        UserError: for a kind that is not known, or several.
    """
    files = [file for part in splits.values() for file in part]
    kinds = list(dict.fromkeys(map(kind_of_file, files)))
    if unknown := [file for file in files if kind_of_file(file) not in BUILDERS]:
        raise UserError(
            "data.path",
            f"a file of {', '.join(BUILDERS)}, or of one of them with {', '.join(COMPRESSIONS)}",
            unknown[0].name,
            why="its format is unknown",
            fix="convert it, or name a folder",
        )
    if len(kinds) > 1:
        raise UserError(
            "data.path",
            "files of one kind",
            ", ".join(kinds),
            why="they are read together",
            fix="convert them to one kind",
        )
    options = {"sep": "\t"} if kinds[0] == ".tsv" else {}
    names = {split: [str(file) for file in part] for split, part in splits.items()}
    return load_dataset_builder(BUILDERS[kinds[0]], data_files=names, cache_dir=_cache_of(files), **options)


def builder_of_folder(folder: Path, name: str | None) -> DatasetBuilder:
    """Return the builder of a folder in the layout of a Hub repository."""
    for card in (folder / "README.md", folder / datasets.config.REPOYAML_FILENAME):
        if card.is_file():
            check_card(card)
    return load_dataset_builder(str(folder), name, cache_dir=_cache_of([folder]))


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


def _cache_of(places: Iterable[Path]) -> str:
    """Return the cache folder for the current state of a folder or of files.

    Needed because `datasets` does not notice edited files that are listed in a README.md, nor other options for CSV.
    """
    state = [_state(place) for place in places]
    digest = hashlib.sha256(repr((*state, _CELLS, _STREAMED_LINES)).encode()).hexdigest()[:16]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"local-{digest}")


def _state(place: Path) -> tuple[str, list[tuple[str, int, int]]]:
    files = sorted(file for file in place.rglob("*") if file.is_file()) or [place]
    sizes = [(str(file.relative_to(place)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return str(place.resolve()), sizes
