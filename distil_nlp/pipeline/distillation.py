"""`distil_nlp.distill`: a run from Python, as `distil-nlp distill` runs it, and its results as an object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.pipeline.distill import distil
from distil_nlp.pipeline.distillation_result import DistillationResult
from distil_nlp.recipe import read_yaml, recipe_from
from distil_nlp.recipe.shipped import recipe_file
from distil_nlp.utils.failures import living_workers, readable_data, writable_disk


def distill(recipe: str | Path | Mapping[str, Any], **overrides: Any) -> DistillationResult:
    """Run a recipe, or the rest of a run, and return its results: scores, baselines, paths.

    ```python
    run = distil_nlp.distill("glue", data={"task": "mrpc"}, evaluation={"seeds": 3})
    run = distil_nlp.distill("glue", **{"data.task": "mrpc", "evaluation.seeds": 3})
    ```

    All files of the command are there, in `training.output_dir`: student, card, report, results. A finished run is
    not run again.

    Args:
        recipe: the path of a YAML file, the name of a shipped recipe, or the sections as a dict.
        **overrides: sections whose keys are merged into the recipe's, or single keys such as `data.task`.

    Raises:
        UserError: for every problem that the user can fix.
        Preempted: after SIGTERM, once a checkpoint is saved.
    """
    file = None if isinstance(recipe, Mapping) else recipe_file(str(recipe))
    tree = _plain(recipe) if file is None else read_yaml(file)
    for key, value in overrides.items():
        _merge(tree, key, _plain(value))
    with writable_disk(), readable_data(), living_workers():
        results = distil(recipe_from(tree, file=file), file.stem if file is not None else "recipe")
    return DistillationResult(results.parent)


def _merge(tree: dict[str, Any], key: str, value: Any) -> None:
    """Merge a value into settings at a dotted key; a dict replaces no key that it does not name.

    Raises:
        UserError: if the key leads through a value that is no section.
    """
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise UserError(key, "keys of sections", f"{section}, which is a value", fix="give the section as a dict")
    tree[last] = _merged(tree.get(last), value)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


def _plain(value: Any) -> Any:
    """Return a value as YAML has it: paths as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.as_posix() if isinstance(value, Path) else value
