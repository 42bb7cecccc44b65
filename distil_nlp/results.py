"""`results.json`: the one hand-over between measuring and showing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.redaction import abbreviate_home
from distil_nlp.tasks import CUSTOM_TASKS, GLUE
from distil_nlp.utils.files import write_atomically

SCHEMA_VERSION = 1


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes `results.json`; NaN and infinity, which JSON does not know, become null, and the home folder `~`."""
    told = abbreviate_home(drop_non_finite({**results, "schema_version": SCHEMA_VERSION}))
    write_atomically(path, json.dumps(told, indent=2) + "\n")


def drop_non_finite(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results as `results.json` has them."""
    return json.loads(json.dumps(results, default=str), parse_constant=lambda _: None)


def summarize_seeds(seeds: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """A metric's value with each seed. A correlation that is not a number, because all predictions are the same, counts
    as 0 in median, minimum and maximum."""
    counted = [0.0 if math.isnan(value) else value for value in values]
    found = {"median": median(counted), "minimum": min(counted), "maximum": max(counted)}
    return {"seeds": seeds, "values": values, **found}


def read_results(path: Path) -> dict[str, Any]:
    """What `write_results` wrote; {} where a file cannot be read as that."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


_NEEDED = {"task": str, "headline": str, "teacher": dict, "student": dict}


def get_nested(tree: Any, *keys: str) -> Any:
    """The value at a path of keys; None where any of them is missing or null."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


@dataclass(frozen=True)
class RunResults:
    """`run.get("teacher.metrics.f1")` is that value of `results.json`, or None where any step of the way is missing.

    Attributes:
        name: the folder's, made unique among the runs of a comparison.
    """

    name: str
    folder: Path
    results: dict[str, Any]

    def get(self, path: str) -> Any:
        return get_nested(self.results, *path.split("."))

    def both(self, path: str) -> tuple[Any, Any]:
        """The teacher's value and the student's."""
        return self.get(f"teacher.{path}"), self.get(f"student.{path}")

    @property
    def task(self) -> str:
        return self.results["task"]

    @property
    def metric(self) -> str:
        """The headline metric."""
        return self.get("headline") or "score"

    @property
    def kind(self) -> str:
        """mlm, classification or regression."""
        if self.task == "mlm":
            return "mlm"
        task = (GLUE | CUSTOM_TASKS).get(self.task)
        return task.kind.name if task else "classification"

    @property
    def splits(self) -> dict[str, int | None]:
        """The splits that were scored, with their rows if known; the first one's scores have plain names."""
        named = dict.fromkeys(name.rpartition("/")[0] for name in self.get("student.metrics") or {} if "/" in name)
        return self.get("rows.evaluation") or named


def read_runs(folders: Sequence[Path]) -> list[RunResults]:
    """Runs in the order given, a folder named twice taken once.

    Raises:
        UserError: if a folder holds no `results.json` that this version can read.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    names = [folder.resolve().name for folder in unique]
    return [
        RunResults(
            name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}", folder, read_run(folder)
        )
        for name, folder in zip(names, unique, strict=True)
    ]


def read_run(folder: Path) -> dict[str, Any]:
    """The results in a finished run's folder, NaN as null, the home folder as `~`.

    Raises:
        UserError: if there are none that this version can read.
    """
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except OSError as error:
        raise UserError(
            f"expected the folder of a finished run / got {folder}, where results.json cannot be read "
            f"({error.strerror}) / there would be nothing to show / name a folder such as runs/glue-mrpc-42"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: expected JSON / got {error} / its figures cannot be read / run the recipe again"
        ) from error
    version = get_nested(results, "schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: expected schema_version {SCHEMA_VERSION} / got {version} / its figures could be misread / "
            "read them with the version of distil_nlp that wrote them"
        )
    wrong = [key for key, kind in _NEEDED.items() if not isinstance(results.get(key), kind)]
    if wrong:
        raise UserError(
            f"{path}: expected the keys {', '.join(_NEEDED)} / got no usable {', '.join(wrong)} / there would be "
            "nothing to tell / run the recipe again"
        )
    return abbreviate_home(results)
