"""Teacher outputs on disk: computed once, and read by every epoch, seed and run with the same teacher and rows."""

from distil_nlp.teachers.cache.builder import CacheConfig, open_or_build_cache
from distil_nlp.teachers.cache.contents import CachedSignals
from distil_nlp.teachers.cache.shards import TeacherCache

__all__ = ["CacheConfig", "CachedSignals", "TeacherCache", "open_or_build_cache"]
