"""A teacher's answers on disk: computed once, read by every epoch, seed and run that asks the same teacher the same."""

from distil_nlp.cache.build import Cache, cached_answers
from distil_nlp.cache.contents import Contents
from distil_nlp.cache.store import TeacherCache

__all__ = ["Cache", "Contents", "TeacherCache", "cached_answers"]
