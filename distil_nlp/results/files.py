"""Writing and reading of `results.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError, quoted
from distil_nlp.redaction import abbreviate_home
from distil_nlp.results.schema import SCHEMA_VERSION, schema_mismatches
from distil_nlp.results.upgrade import READABLE_VERSIONS, upgraded
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_NEEDED = {"task": str, "headline": str, "teacher": dict, "student": dict}
"""Keys without which nothing can be shown, and their types."""


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write `results.json`, with NaN and infinity as null and the home folder as `~`.

    Results that do not match the schema are written all the same, with a warning: hours of training must not be lost
    to a mistake in the schema.
    """
    document = abbreviate_home(drop_non_finite({**results, "schema_version": SCHEMA_VERSION}))
    write_atomically(path, json.dumps(document, indent=2) + "\n")
    mismatches = schema_mismatches(document)
    if mismatches:
        logger.warning(f"{path} is complete, but differs from its schema: {'; '.join(mismatches)}")


def drop_non_finite(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results as JSON has them: NaN and infinity as null, tuples as lists."""
    return json.loads(json.dumps(results, default=str), parse_constant=lambda _: None)


def read_results(path: Path) -> dict[str, Any]:
    """Return the contents of `results.json`, in today's form; {} if the file cannot be read."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # brackets thousands deep
        return {}
    return upgraded(results) if isinstance(results, dict) else {}


def has_results(folder: Path) -> bool:
    """Return whether a folder has a whole `results.json`."""
    results = read_results(folder / "results.json")
    return all(isinstance(results.get(key), kind) for key, kind in {**_NEEDED, "recipe": dict}.items())


def get_nested(tree: Any, *keys: str) -> Any:
    """Return the value at a path of keys; None where any of them is missing or null."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def read_run(folder: Path) -> dict[str, Any]:
    """Return the results of a finished run's folder, with NaN as null and the home folder as `~`.

    Raises:
        UserError: if there is no `results.json` that this version can read.
    """
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except OSError as error:
        raise UserError(
            None,
            "the folder of a finished run",
            f"{folder}, where results.json cannot be read ({error.strerror})",
            why="there would be nothing to show",
            fix="name a folder such as runs/glue-mrpc-42",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            str(path),
            "JSON",
            str(error),
            why="its figures cannot be read",
            fix="run the recipe again",
        ) from error
    version = get_nested(results, "schema_version")
    if version not in READABLE_VERSIONS:
        raise UserError(
            str(path),
            f"schema_version {SCHEMA_VERSION}",
            quoted(version),
            why="its figures could be misread",
            fix="read them with the version of distil_nlp that wrote them",
        )
    wrong = [key for key, kind in _NEEDED.items() if not isinstance(results.get(key), kind)]
    if wrong:
        raise UserError(
            str(path),
            f"the keys {', '.join(_NEEDED)}",
            f"no usable {', '.join(wrong)}",
            why="there would be nothing to show",
            fix="run the recipe again",
        )
    return abbreviate_home(upgraded(results))
