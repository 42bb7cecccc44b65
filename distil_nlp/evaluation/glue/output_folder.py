"""The folder of an evaluation: whose it is, what is done in it, and what its summary says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue.finetuning import MODEL_FOLDER
from distil_nlp.evaluation.glue.settings import FinetuningSettings
from distil_nlp.evaluation.glue.summary import averages, over_seeds, summary_markdown
from distil_nlp.redaction import abbreviate_home
from distil_nlp.utils.files import validate_links, write_atomically
from distil_nlp.utils.settings import describe_changes

GLUE_RESULTS, SCORES = "glue.json", "scores.json"
STARTED_FROM_MNLI = ("mrpc", "stsb", "rte")


def default_folder(model: str) -> Path:
    """`runs/x/glue` for the student of a run, `runs/x/student`; else `runs/glue-<name>`."""
    place = Path(model)
    return place.parent / "glue" if place.name == "student" else Path("runs") / f"glue-{place.resolve().name}"


@dataclass
class Folder:
    """Belongs to one model's weights, one dataset and one choice of settings.

    Attributes:
        path: where it is.
        header: the first part of `glue.json`: `model`, `data`, `mode`, `settings`.
        settings: those of the header.
    """

    path: Path
    header: dict[str, Any]
    settings: FinetuningSettings

    def of(self, task: str, seed: int) -> Path:
        return self.path / task / f"seed-{seed}"

    def check(self) -> None:
        """Nothing is written.

        Raises:
            UserError: if the folder is another evaluation's, holds other files, or links that lead out of it.
        """
        validate_links(self.path)
        saved = self.path / GLUE_RESULTS
        if saved.is_file():
            different = describe_changes(_identity(json.loads(saved.read_text())), _identity(self.header))
            if different:
                raise UserError(
                    "--output",
                    f"an evaluation of this model with these settings in {self.path}",
                    f"another: {'; '.join(different)}",
                    why="their scores would be mixed",
                    fix="name another folder",
                )
        elif self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UserError(
                "--output",
                "an empty folder or an earlier evaluation",
                f"{self.path} with something else",
                why="they would be mixed up",
                fix="name another folder",
            )

    def records(self) -> list[dict[str, Any]]:
        """All that is done, by this command or earlier ones."""
        return [json.loads(file.read_text()) for file in sorted(self.path.glob(f"*/seed-*/{SCORES}"))]

    def plan(self, tasks: list[str], seeds: list[int], submission: bool) -> dict[str, list[int]]:
        """Task → seeds to be trained now; MNLI first where others start from it.

        Raises:
            UserError: if MNLI is to be started from, and neither there nor among the tasks.
        """
        done = {(one["task"], one["seed"]): one for one in self.records()}
        fine = {key for key, one in done.items() if not submission or one["predictions"] is not None}
        from_mnli = self.settings.from_mnli
        order = sorted(tasks, key=lambda task: from_mnli and task != "mnli")
        plan = {task: [seed for seed in seeds if (task, seed) not in fine] for task in order}
        needed = {seed for task in STARTED_FROM_MNLI for seed in plan.get(task, ()) if from_mnli}
        there = {seed for seed in needed if ("mnli", seed) in done and (self.of("mnli", seed) / MODEL_FOLDER).is_dir()}
        if needed - there and "mnli" not in plan:
            raise UserError(
                "--from-mnli",
                f"mnli among --tasks, or models fine-tuned on it in {self.path / 'mnli'}",
                f"none for seed {', '.join(map(str, sorted(needed - there)))}",
                why="there would be nothing to start from",
                fix="add mnli to --tasks",
            )
        if needed - there:
            plan["mnli"] = sorted({*plan["mnli"], *(needed - there)})
        return {task: seeds for task, seeds in plan.items() if seeds}

    def summarise(self, environment: dict[str, Any]) -> dict[str, Any]:
        """Writes `glue.json` and `glue.md` anew, of all that is done; what they say.

        Raises:
            UserError: if the folder cannot be written to.
        """
        records = self.records()
        tasks = over_seeds(records)
        summary = abbreviate_home(self.header) | {
            "environment": environment,
            "rows": {one["task"]: one["rows"] for one in records},
            "tasks": tasks,
            "averages": averages(tasks, self.settings.is_trial),
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / GLUE_RESULTS, json.dumps(summary, indent=2) + "\n")
            write_atomically(self.path / "glue.md", summary_markdown(summary))
        except OSError as error:
            raise UserError(
                "--output",
                "a folder to write to",
                f"{error}",
                why="scores would be lost",
                fix="name another folder",
            ) from error
        return summary


def _identity(header: dict[str, Any]) -> dict[str, Any]:
    weights = header.get("model", {}).get("encoder_sha256")
    return {"the model's encoder_sha256": weights, "data": header.get("data"), **header.get("settings", {})}
