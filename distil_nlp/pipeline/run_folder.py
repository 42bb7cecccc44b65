"""The result folder: whose it is, and whether the run in it is finished."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from distil_nlp.errors import UserError
from distil_nlp.recipe import Recipe, complete, dump_recipe, read_yaml
from distil_nlp.results import read_results
from distil_nlp.utils.files import validate_links, write_atomically
from distil_nlp.utils.settings import IRRELEVANT_KEYS, changed_keys, describe_changes

RECIPE, RESULTS, STUDENT, VARIANTS = "recipe.yaml", "results.json", "student", "variants"
_EXTENDED = ("evaluation.seeds", "evaluation.baselines")
"""Keys that ask for further students: a run that lacks some is unfinished, not another."""


def run_state(folder: Path, recipe: Recipe) -> Literal["new", "unfinished", "finished"]:
    """What a run finds in its output folder.

    Raises:
        UserError: if the folder holds another recipe's run and `run.overwrite` is not set, files that no run wrote,
            or links that lead out of it; nothing is touched.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(
            "training.output_dir",
            "a folder",
            f"{folder}, a file",
            fix="name another place",
        )
    if not folder.exists() or not any(folder.iterdir()):
        return "new"
    saved = folder / RECIPE
    if not saved.is_file():
        raise UserError(
            None,
            "an empty output folder or a run of this recipe",
            f"{folder} with other files",
            why="they would be mixed up",
            fix="set training.output_dir to another folder",
        )
    validate_links(folder)
    if recipe.run.overwrite or not _has_something_to_lose(folder):
        return "new"
    wanted = recipe.model_dump(mode="json")
    different = describe_changes(_saved_recipe(saved), wanted, IRRELEVANT_KEYS + _EXTENDED)
    if different:
        shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
        raise UserError(
            None,
            f"a run of this recipe in {folder}",
            f"another recipe's: {shown}",
            why="its results would be mixed with these",
            fix=(
                "set training.output_dir to another folder, or run.overwrite=true (which moves the old run "
                f"to {_previous(folder)})"
            ),
        )
    is_scored = (folder / RESULTS).is_file() and (folder / STUDENT / "config.json").is_file()
    if not is_scored:
        return "unfinished"
    scored = complete(read_results(folder / RESULTS).get("recipe", {}))
    return "unfinished" if changed_keys(scored, wanted, IRRELEVANT_KEYS) else "finished"


def claim(folder: Path, recipe: Recipe) -> None:
    """Makes the folder this recipe's; with `run.overwrite` an earlier run in it is moved to `<folder>.previous`.

    Raises:
        UserError: if the folder cannot be written to.
    """
    try:
        if recipe.run.overwrite and folder.exists() and _has_something_to_lose(folder):
            _move_to_previous(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, dump_recipe(recipe))
    except OSError as error:
        raise UserError(
            "training.output_dir",
            "a folder to write to",
            f"{error}",
            why="the result would be lost",
            fix="name another folder",
        ) from error


def _move_to_previous(folder: Path) -> None:
    """Moves a run to `<folder>.previous`; one that never finished does not push a finished one out of there."""
    if (folder / RESULTS).is_file() or not (_previous(folder) / RESULTS).is_file():
        shutil.rmtree(_previous(folder), ignore_errors=True)
        folder.rename(_previous(folder))
    else:
        shutil.rmtree(folder)


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _has_something_to_lose(folder: Path) -> bool:
    return any(folder.glob("checkpoint-*")) or any((folder / name).exists() for name in (RESULTS, STUDENT, VARIANTS))


def _saved_recipe(path: Path) -> dict[str, Any]:
    """Return all settings of a run's recipe, defaults included, whether or not the file has them written out."""
    try:
        return complete(read_yaml(path))
    except UserError as error:
        raise UserError(
            None,
            f"the recipe of a run in {path}",
            "no YAML",
            fix="set another output_dir",
        ) from error
