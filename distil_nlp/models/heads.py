"""Which head a checkpoint has, by its configuration alone."""

from __future__ import annotations

import transformers
from transformers import PretrainedConfig

from distil_nlp.tasks import TaskKind


def classes_of_auto(auto_model: str) -> set[str]:
    """Return the names of the classes that an auto class of transformers loads."""
    names = getattr(transformers, auto_model)._model_mapping._model_mapping.values()
    return {name for entry in names for name in ([entry] if isinstance(entry, str) else entry)}


def has_head(config: PretrainedConfig, kind: TaskKind) -> bool:
    """Return whether a checkpoint was saved with the head that a kind of task needs: as many outputs, of its meaning.

    A configuration that does not tell the meaning (`problem_type`) is taken at its number of outputs.
    """
    is_of_kind = not classes_of_auto(kind.auto_model).isdisjoint(config.architectures or ())
    is_of_kind &= getattr(config, "problem_type", None) in (None, kind.problem_type)
    return is_of_kind and (not kind.has_labels or (config.num_labels == 1) == (kind.num_labels == 1))
