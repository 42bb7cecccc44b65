"""A teacher's answers on disk: computed once, read by every epoch, seed and run that asks the same teacher the same."""

from distil_nlp.teachers.cache.builder import Cache, cached_answers
from distil_nlp.teachers.cache.contents import Contents
from distil_nlp.teachers.cache.shards import TeacherCache

__all__ = ["Cache", "Contents", "TeacherCache", "cached_answers"]
