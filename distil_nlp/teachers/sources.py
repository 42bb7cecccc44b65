"""The source of teacher signals for what a caller gives as the teacher."""

from __future__ import annotations

from transformers import PreTrainedModel

from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cached import CachedTeacher
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.ensemble_teacher import EnsembleTeacher
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.source import TeacherSource


def teacher_source(
    teacher: TeacherSource | PreTrainedModel | Ensemble | None, config: CacheConfig | None = None
) -> TeacherSource:
    """Return the source for a model or an ensemble, with a cache if one is configured; a source for another trainer."""
    if isinstance(teacher, TeacherSource):
        return teacher.for_trainer()
    if teacher is None:
        return TeacherSource()
    if isinstance(teacher, Ensemble):
        return EnsembleTeacher(teacher, None if config is None else [config] * len(teacher.members))
    return FrozenTeacher(teacher) if config is None else CachedTeacher(teacher, config)
