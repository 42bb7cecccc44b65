"""The recipe section `teacher`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distil_nlp.data import AnswerColumns
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import OWN
from distil_nlp.models import has_head, load_config
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import TeacherMember, TeacherSection
from distil_nlp.tasks import TaskKind
from distil_nlp.teachers.answers import AnswersTeacher
from distil_nlp.teachers.averaged import CheckpointMeanTeacher, EMATeacher
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cached import CachedTeacher
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.ensemble_teacher import EnsembleTeacher
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.guides import Guides
from distil_nlp.teachers.last_epoch import LastEpochTeacher
from distil_nlp.teachers.mixing import Mixing
from distil_nlp.teachers.source import TeacherSource
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_OF_SEVERAL = ("weight", "mix", "weighting")
_SEEDS_APART = 1000
"""Distance between the seeds of an ensemble's teachers, larger than any number of students' seeds."""


def single_teachers(recipe: Recipe) -> list[Recipe]:
    """Return a recipe for each model that teaches; those of an ensemble are fine-tuned with different seeds."""
    section, recipes = recipe.teacher, []
    alone = {"ensemble": None, **{name: TeacherSection.model_fields[name].default for name in _OF_SEVERAL}}
    for number, member in enumerate(_members(section)):
        tuning = section.finetune
        if tuning is not None and number:
            tuning = {**tuning, "seed": tuning.get("seed", DEFAULT_SEED) + _SEEDS_APART * number}
        own = {**alone, "name": member.name, "revision": member.revision, "finetune": tuning}
        recipes.append(recipe.model_copy(update={"teacher": section.model_copy(update=own)}))
    return recipes


def _members(section: TeacherSection) -> Sequence[TeacherSection | TeacherMember]:
    """Return all teachers that are models, the first one first."""
    return [section, *(one for one in section.ensemble or () if one.columns is None)]


def mixing_of(recipe: Recipe) -> Mixing:
    """Return how the teachers' outputs are mixed; answers in the data's columns are the last one.

    Raises:
        UserError: if no weight is above 0.
    """
    section = recipe.teacher
    answers = [member.weight for member in section.ensemble or () if member.columns is not None]
    weights = (*(member.weight for member in _members(section)), *answers)
    return Mixing(weights, section.mix, section.weighting, has_answers=bool(answers))


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
    models = [one.teacher for one in single_teachers(recipe)]
    if not all(has_head(load_config(one.name, one.revision), kind) for one in models):
        return recipe
    logger.info(f"{section.name} has a {kind.head_name} head already, and is not fine-tuned (teacher.finetune_when)")
    return recipe.model_copy(update={"teacher": section.model_copy(update={"finetune": None, "reseed": False})})


def teacher_cache(recipe: Recipe) -> CacheConfig | None:
    """Return the settings of the cache of teacher outputs, or None; its folder's name begins with teacher and task."""
    section, name = recipe.teacher.cache, f"{Path(recipe.teacher.name).name}-{recipe.data.task}"
    return CacheConfig(name=name, **section.model_dump()) if section else None


def answers_of(recipe: Recipe) -> AnswerColumns | None:
    """Return the columns of the data that teach, alone or in an ensemble; None where models do."""
    section = recipe.teacher.answers
    if section is None:
        return None
    form: Any = section.forms[0]
    return AnswerColumns(form, getattr(section, form), section.confidence, section.price)


def self_teacher(recipe: Recipe, student: PreTrainedModel) -> TeacherSource | None:
    """Return the source by which a student teaches itself, or answers in the data do; None where a model teaches."""
    section = recipe.teacher.self
    if recipe.teacher.columns is not None:
        return AnswersTeacher(student.config)
    if section is None or section.kind == "pretrained":
        return None
    if section.kind == "last_epoch":
        return LastEpochTeacher(student.config, section.alpha)
    if section.kind == "ema":
        return EMATeacher(student, section.decay)
    return CheckpointMeanTeacher(student, section.count, section.every)


def source_of(
    recipe: Recipe,
    teacher: PreTrainedModel | Ensemble,
    encoding: str = OWN,
    vocabulary: CommonVocabulary | None = None,
) -> TeacherSource | PreTrainedModel:
    """Return an ensemble as a source with a cache for each teacher, whose name it has; another model as it is.

    Args:
        recipe: of the student.
        teacher: one model, or several.
        encoding: the tokens that one model reads; where they are not the student's, it is returned as a source too.
        vocabulary: the words that it has in common with the student, where words of two vocabularies are predicted.
    """
    if not isinstance(teacher, Ensemble):
        cache = teacher_cache(recipe)
        if encoding == OWN:
            return teacher
        return (
            FrozenTeacher(teacher, encoding, vocabulary) if cache is None else CachedTeacher(teacher, cache, encoding)
        )
    if recipe.teacher.guided == "dense":
        cache = teacher_cache(recipe)
        guides = [cache] * len(teacher.members) if cache else None
        return Guides(teacher, guides, recipe.teacher.drop, recipe.training["seed"])
    caches = [cache for one in single_teachers(recipe) if (cache := teacher_cache(one))]
    return EnsembleTeacher(teacher, caches or None)


def teacher_dtype(recipe: Recipe) -> torch.dtype:
    """Return the teacher's precision.

    `auto` is the half precision that the student trains in, since accelerate does not autocast the teacher.
    """
    name = recipe.teacher.dtype
    if name != "auto":
        return getattr(torch, name)
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return next((dtype for key, dtype in halves.items() if recipe.training.get(key)), torch.float32)
