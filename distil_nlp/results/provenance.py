"""`Provenance`: fingerprints of all that a student is made of, kept beside it and compared when it is carried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

PROVENANCE = "provenance.json"
UNCOMPARED = "whether data, models and recipe are still the same could not be compared"
_WORDS = {
    "recipe": "another recipe",
    "training_rows": "other training rows",
    "evaluation_rows": "other evaluation rows",
    "teacher": "another teacher",
    "tokenizer": "another tokenizer",
    "starting_checkpoint": "another student.name to start from",
    "other_tasks": "other rows or teachers of the other tasks",
    "plugins": "other code of your own (plugins)",
}
"""Fields of a provenance that must be equal → what is said of one that is not."""


@dataclass(frozen=True)
class Provenance:
    """Fingerprints of the ingredients of a student.

    Attributes:
        recipe: of the settings that change a student.
        training_rows: of all rows that it learns from, and of those that a checkpoint is chosen by.
        evaluation_rows: of all rows that it is scored on.
        teacher: of the files of all teachers, or their commits on the Hub; before fine-tuning.
        tokenizer: of vocabulary and special tokens.
        starting_checkpoint: of the model that the student starts from; None if it is built from the teacher.
        data_files: of the files of local data, which tell of a change without loading them; None for the Hub.
        versions: of the packages that compute.
        plugins: of the files of one's own code, and of those beside them that they import; None without any.
        other_tasks: of the training rows and teachers of the other tasks that a student shares its encoder with; None
            without any, or where they were not looked at, and are not compared.
    """

    recipe: str
    training_rows: str
    evaluation_rows: str
    teacher: str
    tokenizer: str
    starting_checkpoint: str | None
    data_files: str | None
    versions: Mapping[str, str | None]
    plugins: str | None = None
    other_tasks: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `provenance.json`."""
        return asdict(self)

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """Return which ingredients differ from earlier ones, in words."""
        known = [name for name in _WORDS if name in before and (name != "other_tasks" or self.other_tasks)]
        return [_WORDS[name] for name in known if before[name] != getattr(self, name)]

    def validate(self, before: Mapping[str, Any] | None, place: Path) -> None:
        """Raise unless what was made in a place had the same ingredients; other versions are logged.

        Args:
            before: the provenance kept there; None where there is none, as in runs of earlier versions.

        Raises:
            UserError: naming what differs.
        """
        if before is None:
            logger.info(f"{place} has no fingerprints: {UNCOMPARED}")
            return
        differences = self.differences(before)
        if differences:
            raise UserError(
                None,
                f"what {place} was begun with",
                " and ".join(differences),
                why="one student would have learnt from both, and be compared with others that have not",
                fix="put back what it was begun with, name another training.output_dir, or set run.overwrite=true to "
                "start anew",
            )
        versions = before.get("versions")
        if isinstance(versions, Mapping) and versions != self.versions:
            changes = [f"{name} {versions.get(name)} (now {now})" for name, now in self.versions.items()
                       if versions.get(name) != now]  # fmt: skip
            logger.info(f"{place} was begun with {', '.join(changes)}: its figures may differ in the last digits")
