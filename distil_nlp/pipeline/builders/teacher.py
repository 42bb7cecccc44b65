"""The recipe section `teacher`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from distil_nlp.models import has_head, load_config
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.recipe import Recipe
from distil_nlp.tasks import TaskKind
from distil_nlp.teachers.averaged import CheckpointMeanTeacher, EMATeacher
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.last_epoch import LastEpochTeacher
from distil_nlp.teachers.source import TeacherSource
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_SEEDS_APART = 1000
"""Distance between the seeds of an ensemble's teachers, larger than any number of students' seeds."""


def single_teachers(recipe: Recipe) -> list[Recipe]:
    """Return a recipe for each teacher alone; the teachers of an ensemble are fine-tuned with different seeds."""
    section, recipes = recipe.teacher, []
    for number, name in enumerate([section.name, *(section.ensemble or [])]):
        tuning = section.finetune
        if tuning is not None and number:
            tuning = {**tuning, "seed": tuning.get("seed", DEFAULT_SEED) + _SEEDS_APART * number}
        own = {"name": name, "ensemble": None, "finetune": tuning, "revision": None if number else section.revision}
        recipes.append(recipe.model_copy(update={"teacher": section.model_copy(update=own)}))
    return recipes


def label_names(recipe: Recipe) -> list[str] | None:
    """Return `data.label_names` as names."""
    names = recipe.data.label_names
    return None if names is None else [str(name) for name in names]


def without_needless_finetuning(recipe: Recipe, kind: TaskKind) -> Recipe:
    """Return the recipe without `teacher.finetune` where `finetune_when` is `untrained` and all teachers are trained.

    Raises:
        UserError: if a teacher's configuration cannot be read.
    """
    section = recipe.teacher
    if section.finetune is None or section.finetune_when == "always":
        return recipe
    names = [(section.name, section.revision), *((name, None) for name in section.ensemble or [])]
    if not all(has_head(load_config(name, revision), kind) for name, revision in names):
        return recipe
    logger.info(f"{section.name} has a {kind.head_name} head already, and is not fine-tuned (teacher.finetune_when)")
    return recipe.model_copy(update={"teacher": section.model_copy(update={"finetune": None, "reseed": False})})


def teacher_cache(recipe: Recipe) -> CacheConfig | None:
    """Return the settings of the cache of teacher outputs, or None; its folder's name begins with teacher and task."""
    section, name = recipe.teacher.cache, f"{Path(recipe.teacher.name).name}-{recipe.data.task}"
    return CacheConfig(name=name, **section.model_dump()) if section else None


def self_teacher(recipe: Recipe, student: PreTrainedModel) -> TeacherSource | None:
    """Return the source by which a student teaches itself; None where the recipe's teacher does."""
    section = recipe.teacher.self
    if section is None:
        return None
    if section.kind == "last_epoch":
        return LastEpochTeacher(student.config, section.alpha)
    if section.kind == "ema":
        return EMATeacher(student, section.decay)
    return CheckpointMeanTeacher(student, section.count, section.every)


_SENTENCES = {
    "last_epoch": "its targets were the labels mixed with its own predictions of the epoch before, whose share grew "
    "from epoch to epoch up to {alpha:g} (PS-KD, arXiv:2006.12000)",
    "ema": "its teacher was the moving average of its own weights, with a decay of {decay:g} in a step (Mean Teacher, "
    "arXiv:1703.01780)",
    "checkpoints": "its teacher was the mean of its own weights at its last {count} checkpoints, {every} steps apart "
    "(SDA, arXiv:2002.10345)",
}
"""`teacher.self.kind` → how the student teaches itself."""


def teaching_sentence(recipe: Recipe) -> str:
    """Return in a sentence, for card and report, by whom the student is taught in place of the teacher as it is."""
    section = recipe.teacher
    if section.self is not None:
        how = _SENTENCES[section.self.kind].format(**section.self.model_dump())
        return f"The student taught itself: {how}.".replace(", 1 steps apart", ", one after each step")
    parts = ", ".join(f"{fraction:.0%}" for fraction in section.checkpoints or ())
    return f"The teacher taught as it was after {parts} of its fine-tuning, one after another (RCO, arXiv:1904.09149)."


def teacher_dtype(recipe: Recipe) -> torch.dtype:
    """Return the teacher's precision.

    `auto` is bfloat16 where the student trains in it, since accelerate does not autocast the teacher.
    """
    name = recipe.teacher.dtype
    if name == "auto":
        return torch.bfloat16 if recipe.training.get("bf16") else torch.float32
    return getattr(torch, name)
