"""The result folder: whose it is, and whether the run in it is finished."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import yaml

from distil_nlp.errors import UserError
from distil_nlp.recipe import Recipe, dump_recipe
from distil_nlp.results import write_atomically

RECIPE, RESULTS, STUDENT = "recipe.yaml", "results.json", "student"
_NOT_COMPARED = ("run", "hub")


def look_at(folder: Path, recipe: Recipe) -> Literal["new", "unfinished", "finished"]:
    """What a run finds in its output folder.

    Raises:
        UserError: if the folder holds another recipe's run, or something that is no run, and
            `run.overwrite` is not set; nothing is touched.
    """
    saved = folder / RECIPE
    if recipe.run.overwrite or not folder.exists() or not any(folder.iterdir()):
        return "new"
    if not saved.is_file():
        raise UserError(
            f"expected an empty output folder or a run of this recipe / got {folder} with other files / they would be "
            "mixed up / set training.output_dir to another folder, or run.overwrite=true"
        )
    theirs = yaml.safe_load(saved.read_text(encoding="utf-8")) or {}
    different = _differences(theirs, yaml.safe_load(dump_recipe(recipe)))
    if different:
        shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
        raise UserError(
            f"expected a run of this recipe in {folder} / got another recipe's: {shown} / its results would be lost or "
            "mixed / set training.output_dir to another folder, or run.overwrite=true"
        )
    return "finished" if (folder / RESULTS).is_file() else "unfinished"


def claim(folder: Path, recipe: Recipe) -> None:
    """Marks the folder as this recipe's; with `run.overwrite` what an earlier run left is removed first."""
    if recipe.run.overwrite and folder.exists():
        _remove_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, dump_recipe(recipe))
    except OSError as error:
        raise UserError(
            f"training.output_dir: expected a folder to write to / got {error} / the result would be lost / name "
            "another folder"
        ) from error


def _remove_run(folder: Path) -> None:
    """Removes what runs write, and nothing else that may lie there."""
    for place in (*folder.glob("checkpoint-*"), folder / STUDENT, folder / "report"):
        if place.is_dir():
            shutil.rmtree(place)
    for name in (RESULTS, RECIPE):
        (folder / name).unlink(missing_ok=True)


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """`section.key: theirs → ours` for every value that differs."""
    flat_theirs, flat_ours = dict(_flatten(theirs)), dict(_flatten(ours))
    keys = [key for key in flat_theirs | flat_ours if key.split(".")[0] not in _NOT_COMPARED]
    return [
        f"{key} was {flat_theirs.get(key)!r}, is {flat_ours.get(key)!r}"
        for key in keys
        if flat_theirs.get(key) != flat_ours.get(key)
    ]


def _flatten(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(tree, dict) or not tree:
        return [(prefix, tree)]
    return [pair for key, value in tree.items() for pair in _flatten(value, f"{prefix}.{key}" if prefix else str(key))]
