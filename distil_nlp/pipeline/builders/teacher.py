"""The recipe section `teacher`."""

from __future__ import annotations

from pathlib import Path

import torch

from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.recipe import Recipe
from distil_nlp.teachers.cache import CacheConfig

_SEEDS_APART = 1000
"""Between the teachers of an ensemble: more than there are seeds of students, each of which may have its own."""


def single_teachers(recipe: Recipe) -> list[Recipe]:
    """The recipe of each teacher by itself; of an ensemble all are fine-tuned, with seeds of their own."""
    section, found = recipe.teacher, []
    for number, name in enumerate([section.name, *(section.ensemble or [])]):
        tuning = section.finetune
        if tuning is not None and number:
            tuning = {**tuning, "seed": tuning.get("seed", DEFAULT_SEED) + _SEEDS_APART * number}
        own = {"name": name, "ensemble": None, "finetune": tuning, "revision": None if number else section.revision}
        found.append(recipe.model_copy(update={"teacher": section.model_copy(update=own)}))
    return found


def teacher_cache(recipe: Recipe) -> CacheConfig | None:
    """Where the teacher's answers are kept, if they are; a folder's name begins with teacher and task."""
    section, name = recipe.teacher.cache, f"{Path(recipe.teacher.name).name}-{recipe.data.task}"
    return section and CacheConfig(name=name, **section.model_dump())


def teacher_dtype(recipe: Recipe) -> torch.dtype:
    """The teacher's own precision: bfloat16 where the student trains in it, since accelerate does not autocast
    the teacher."""
    named = recipe.teacher.dtype
    if named == "auto":
        return torch.bfloat16 if recipe.training.get("bf16") else torch.float32
    return getattr(torch, named)
