"""The output folder of a GLUE evaluation: its owner, the scores in it, and their summary."""

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
from distil_nlp.utils.files import load_json, read_json, validate_links, write_atomically
from distil_nlp.utils.locks import LOCK
from distil_nlp.utils.names import path_name
from distil_nlp.utils.settings import describe_changes

GLUE_RESULTS, SCORES = "glue.json", "scores.json"
STARTED_FROM_MNLI = ("mrpc", "stsb", "rte")


def default_folder(model: str) -> Path:
    """Return `runs/x/glue` for the student of a run, `runs/x/student`; otherwise `runs/glue-<name>`."""
    place = Path(model)
    is_run = place.name == "student" and place.is_dir()  # me/student may be a name on the Hub
    return place.parent / "glue" if is_run else Path("runs") / path_name(f"glue-{place.resolve().name}")


@dataclass
class Folder:
    """The output folder of one model's weights, one dataset and one set of settings.

    Attributes:
        path: where it is.
        header: first part of `glue.json`: `model`, `data`, `mode`, `settings`.
        settings: those of the header.
    """

    path: Path
    header: dict[str, Any]
    settings: FinetuningSettings

    def of(self, task: str, seed: int) -> Path:
        """Return the folder of a task and seed."""
        return self.path / path_name(task) / f"seed-{seed}"

    def check(self) -> None:
        """Raise an error if the folder cannot be used; nothing is written.

        Raises:
            UserError: if it belongs to another evaluation, holds other files, or has links that lead out of it.
        """
        validate_links(self.path)
        saved = self.path / GLUE_RESULTS
        if saved.is_file():
            different = describe_changes(_identity(_saved_header(saved)), _identity(self.header))
            if different:
                raise UserError(
                    "--output",
                    f"an evaluation of this model with these settings in {self.path}",
                    f"another: {'; '.join(different)}",
                    why="their scores would be mixed",
                    fix="name another folder",
                )
        elif self.path.exists() and not (self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {LOCK}):
            raise UserError(
                "--output",
                "an empty folder or an earlier evaluation",
                f"{self.path} with something else",
                why="they would be mixed up",
                fix="name another folder",
            )

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all finished fine-tunings, of this command and earlier ones."""
        needed = {"task": str, "seed": int, "metrics": dict, "rows": dict, "seconds": int | float}
        files = sorted(self.path.glob(f"*/seed-*/{SCORES}"))
        found = (read_json(file, "this fine-tuning is repeated", **needed) for file in files)
        return [record for record in found if record is not None]

    def plan(self, tasks: list[str], seeds: list[int], submission: bool) -> dict[str, list[int]]:
        """Return task → seeds that are still to be trained, MNLI first where others start from it.

        Args:
            tasks: chosen tasks.
            seeds: chosen seeds.
            submission: whether predictions on the test splits are needed too.

        Raises:
            UserError: if tasks start from models fine-tuned on MNLI that neither exist nor are planned.
        """
        done = {(record["task"], record["seed"]): record for record in self.records()}
        complete = {key for key, record in done.items() if not submission or record.get("predictions") is not None}
        from_mnli = self.settings.from_mnli
        order = sorted(tasks, key=lambda task: from_mnli and task != "mnli")
        plan = {task: [seed for seed in seeds if (task, seed) not in complete] for task in order}
        needed = {seed for task in STARTED_FROM_MNLI for seed in plan.get(task, ()) if from_mnli}
        available = {
            seed for seed in needed if ("mnli", seed) in done and (self.of("mnli", seed) / MODEL_FOLDER).is_dir()
        }
        if needed - available and "mnli" not in plan:
            raise UserError(
                "--from-mnli",
                f"mnli among --tasks, or models fine-tuned on it in {self.path / 'mnli'}",
                f"none for seed {', '.join(map(str, sorted(needed - available)))}",
                why="there would be nothing to start from",
                fix="add mnli to --tasks",
            )
        if needed - available:
            plan["mnli"] = sorted({*plan["mnli"], *(needed - available)})
        return {task: seeds for task, seeds in plan.items() if seeds}

    def summarise(self, environment: dict[str, Any]) -> dict[str, Any]:
        """Write `glue.json` and `glue.md` for all finished fine-tunings, and return the content of `glue.json`.

        Raises:
            UserError: if the folder cannot be written to.
        """
        records = self.records()
        tasks = over_seeds(records)
        summary = abbreviate_home(self.header) | {
            "environment": environment,
            "rows": {record["task"]: record["rows"] for record in records},
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
                str(error),
                why="scores would be lost",
                fix="name another folder",
            ) from error
        return summary


def _saved_header(file: Path) -> dict[str, Any]:
    try:
        return load_json(file, model=dict, settings=dict)
    except (OSError, ValueError) as error:
        raise UserError(
            "--output",
            f"the settings of an evaluation in {file}",
            str(error),
            why="it is unknown whether the scores beside it are this model's",
            fix="delete it if they are, or name another folder",
        ) from error


def _identity(header: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a header that must agree for scores to belong together."""
    weights = header.get("model", {}).get("encoder_sha256")
    return {"the model's encoder_sha256": weights, "data": header.get("data"), **header.get("settings", {})}
