"""The provenance of a run's students: fingerprints of its recipe, rows and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from distil_nlp.data import TransferSet
from distil_nlp.data.fingerprint import hash_data_files, hash_json, hash_model_files, hash_tokenizer, hash_values
from distil_nlp.models import commit_of
from distil_nlp.pipeline import builders
from distil_nlp.recipe import Recipe, concise
from distil_nlp.redaction import abbreviate_home
from distil_nlp.results.provenance import Provenance
from distil_nlp.utils.installed import package_versions
from distil_nlp.utils.settings import EXTENDING_KEYS, IRRELEVANT_KEYS, flatten

_COMPUTING = ("distil-nlp", "torch", "transformers")


def provenance_of(recipe: Recipe, data: TransferSet, tokenizer: PreTrainedTokenizerBase) -> Provenance:
    """Return the fingerprints of a run's recipe, of all its rows, and of its models' files."""
    split, files = data.split, hash_data_files(recipe.data.path)
    return Provenance(
        recipe=fingerprint_of_recipe(recipe),
        training_rows=hash_json([_hash_rows(rows, files or data.revision) for rows in (split.train, split.selection)]),
        evaluation_rows=hash_json({name: _hash_rows(rows, None) for name, rows in split.evaluation.items()}),
        teacher=hash_teachers(recipe),
        tokenizer=str(hash_tokenizer(tokenizer)),
        starting_checkpoint=recipe.student.name and fingerprint_of_model(recipe.student.name, recipe.student.revision),
        data_files=files,
        versions=package_versions(_COMPUTING),
        plugins=hash_plugins(recipe),
    )


def beside_each_other(tasks: Mapping[str, Provenance]) -> dict[str, Provenance]:
    """Return the fingerprints of students of several tasks, each with those of what the others learn from.

    Args:
        tasks: name of a task → the fingerprints of its student by itself.
    """
    learnt = {name: [own.training_rows, own.teacher] for name, own in tasks.items()}
    others = {name: [learnt[other] for other in tasks if other != name] for name in tasks}
    return {name: replace(own, other_tasks=hash_json(others[name])) for name, own in tasks.items()}


def fingerprint_of_recipe(recipe: Recipe) -> str:
    """Return a hash of the settings that change a student, as far as they differ from the defaults."""
    settings = flatten(abbreviate_home(concise(recipe.model_dump(mode="json"), type(recipe))))
    return hash_json({k: v for k, v in settings.items() if not k.startswith(IRRELEVANT_KEYS + EXTENDING_KEYS)})


def changed_sources(recipe: Recipe, before: Mapping[str, Any]) -> list[str]:
    """Return what has changed since a run, as far as files tell without loading rows or models."""
    now = {
        "data files": hash_data_files(recipe.data.path),
        "teacher": hash_teachers(recipe),
        "plugins": hash_plugins(recipe),
    }
    return [name for name, value in now.items() if before.get(name.replace(" ", "_"), value) != value]


def fingerprint_of_model(name: str, revision: str | None) -> str:
    """Return a hash of a folder's model files, or the commit of a model on the Hub."""
    folder = Path(name).expanduser()
    return hash_model_files(folder) if folder.is_dir() else f"{name}@{commit_of(name, revision) or revision}"


def hash_teachers(recipe: Recipe) -> str:
    """Return a hash of the model files of all teachers, or of their commits on the Hub."""
    teachers = [single.teacher for single in builders.single_teachers(recipe)]
    return hash_json([fingerprint_of_model(teacher.name, teacher.revision) for teacher in teachers])


def hash_plugins(recipe: Recipe) -> str | None:
    """Return a hash of the files of one's own code, and of those beside them that they import; None without any."""
    hashes = sorted(sha256 for plugin in recipe.imported for sha256 in plugin.hashes)
    return hash_json(hashes) if hashes else None


def _hash_rows(rows: Any, source: str | None) -> str | None:
    """Return a hash of all rows; of a stream, that of its source."""
    if rows is None or not hasattr(rows, "__len__"):
        return rows and f"a stream of {source}"
    return hash_values(rows)
