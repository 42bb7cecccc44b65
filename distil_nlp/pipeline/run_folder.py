"""The output folder of a run: its recipe, and whether the run in it is finished."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from distil_nlp.errors import UserError
from distil_nlp.recipe import Recipe, complete, dump_recipe, read_yaml
from distil_nlp.results import READABLE_VERSIONS, SCHEMA_VERSION
from distil_nlp.results.provenance import PROVENANCE, Provenance
from distil_nlp.utils.files import read_json, validate_links, write_atomically
from distil_nlp.utils.locks import LOCK
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.settings import EXTENDING_KEYS, IRRELEVANT_KEYS, changed_keys, describe_changes

logger = get_logger(__name__)

RunState = Literal["new", "unfinished", "finished"]
RECIPE, RESULTS, STUDENT, VARIANTS = "recipe.yaml", "results.json", "student", "variants"


def validate_folder(folder: Path) -> None:
    """Raise unless an output folder is missing, empty or a run's.

    Raises:
        UserError: if it is a file, or holds files that no run wrote or links that lead out of it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(
            "training.output_dir",
            "a folder",
            f"{folder}, a file",
            fix="name another place",
        )
    if folder.exists() and not (folder / RECIPE).is_file() and _entries(folder):
        raise UserError(
            None,
            "an empty output folder or a run of this recipe",
            f"{folder} with other files",
            why="they would be mixed up",
            fix="set training.output_dir to another folder",
        )
    validate_links(folder)


def run_state(folder: Path, recipe: Recipe) -> RunState:
    """Return the state of the run in an output folder; nothing is changed.

    Raises:
        UserError: if the folder holds another recipe's run and `run.overwrite` is not set, or is none of a run.
    """
    validate_folder(folder)
    if recipe.run.overwrite or not _has_progress(folder):
        return "new"
    settings = recipe.model_dump(mode="json")
    changes = describe_changes(_saved_recipe(folder / RECIPE, type(recipe)), settings, IRRELEVANT_KEYS + EXTENDING_KEYS)
    if changes:
        listed = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
        raise UserError(
            None,
            f"a run of this recipe in {folder}",
            f"another recipe's: {listed}",
            why="its results would be mixed with these",
            fix=(
                "set training.output_dir to another folder, or run.overwrite=true (which moves the old run "
                f"to {_previous(folder)})"
            ),
        )
    results = _scores(folder / RESULTS)
    if results is None or not (folder / STUDENT / "config.json").is_file():
        return "unfinished"
    scored = complete(results["recipe"], type(recipe))
    return "unfinished" if changed_keys(scored, settings, IRRELEVANT_KEYS) else "finished"


def _scores(path: Path) -> dict[str, Any] | None:
    """Return the contents of `results.json`; None if there are none that this version would show."""
    results = read_json(path, "the student is scored again", recipe=dict)
    if results is not None and results.get("schema_version", SCHEMA_VERSION) not in READABLE_VERSIONS:
        logger.info(f"{path} has schema {results['schema_version']}, not {SCHEMA_VERSION}: the student is scored again")
        return None
    return results


def claim(folder: Path, recipe: Recipe, provenance: Provenance | None = None) -> None:
    """Write recipe and provenance into the folder; `run.overwrite` first moves an earlier run to `<folder>.previous`.

    Raises:
        UserError: if the folder cannot be written to.
    """
    try:
        if recipe.run.overwrite and folder.exists() and _has_progress(folder):
            move_to_previous(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, dump_recipe(recipe))
        if provenance is not None:
            write_atomically(folder / PROVENANCE, json.dumps(provenance.to_dict(), indent=1))
    except OSError as error:
        raise UserError(
            "training.output_dir",
            "a folder to write to",
            str(error),
            why="the result would be lost",
            fix="name another folder",
        ) from error


def move_to_previous(folder: Path) -> None:
    """Move a run to `<folder>.previous`; delete an unfinished run instead where a finished one is there.

    The lock stays in the folder's place.
    """
    previous = _previous(folder)
    if (folder / RESULTS).is_file() or not (previous / RESULTS).is_file():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
        folder.mkdir()
        with suppress(OSError):  # a folder that is a link to another disk
            (previous / LOCK).rename(folder / LOCK)
        return
    for path in _entries(folder):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _entries(folder: Path) -> list[Path]:
    """Return all that is in a folder but for its lock."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _has_progress(folder: Path) -> bool:
    return any(folder.glob("checkpoint-*")) or any((folder / name).exists() for name in (RESULTS, STUDENT, VARIANTS))


def _saved_recipe(path: Path, schema: type[Recipe]) -> dict[str, Any]:
    """Return all settings of a run's recipe, defaults included, whether or not the file has them written out."""
    try:
        return complete(read_yaml(path), schema)
    except UserError as error:
        raise UserError(
            None,
            f"the recipe of a run in {path}",
            "no YAML",
            fix="set another output_dir",
        ) from error
