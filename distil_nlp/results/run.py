"""The results of one run, with access by path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil_nlp.results.files import get_nested, read_run
from distil_nlp.tasks import TASKS, TaskKind


@dataclass(frozen=True)
class RunResults:
    """The results of a run: `run.get("teacher.metrics.f1")` is that value of `results.json`.

    Attributes:
        name: the folder's name, made unique among the runs of a comparison.
        folder: the run's folder.
        results: the contents of `results.json`; any part may be missing.
    """

    name: str
    folder: Path
    results: dict[str, Any]

    def get(self, path: str) -> Any:
        """Return the value at a dotted path; None where any step of it is missing."""
        return get_nested(self.results, *path.split("."))

    def both(self, path: str) -> tuple[Any, Any]:
        """Return the teacher's value and the student's."""
        return self.get(f"teacher.{path}"), self.get(f"student.{path}")

    @property
    def task(self) -> str:
        """A GLUE task, `classification`, `regression` or `mlm`."""
        return self.results["task"]

    @property
    def metric(self) -> str:
        """The headline metric."""
        return self.get("headline") or "score"

    @property
    def kind(self) -> TaskKind:
        """The kind of task; classification for a task of another version."""
        return TASKS[self.task if self.task in TASKS else "classification"].kind

    @property
    def own_terms(self) -> dict[str, dict[str, Any]]:
        """The terms of the user's own that were computed: name → facts, `plugin` and its `sha256` among them."""
        used = self.get("recipe.objective") or {}
        return {
            name: {**facts, "plugin": code.get("name"), "sha256": code.get("sha256")}
            for code in self.get("own_code") or []
            for name, facts in (code.get("terms") or {}).items()
            if used.get(name) is not None
        }

    @property
    def splits(self) -> dict[str, int | None]:
        """Scored splits and their number of rows, if known; the first split's scores have plain names."""
        names = (name.rpartition("/")[0] for name in self.get("student.metrics") or {} if "/" in name)
        return self.get("rows.evaluation") or dict.fromkeys(names)


def read_runs(folders: Sequence[Path]) -> list[RunResults]:
    """Return the runs of these folders in order; a folder that is named twice is taken once.

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
