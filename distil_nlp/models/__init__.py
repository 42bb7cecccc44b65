"""Loading of models, and construction of the student from its teacher."""

from distil_nlp.models.compatibility import check_labels, check_vocabulary, check_words
from distil_nlp.models.loading import (
    commit_of,
    load_config,
    load_model,
    load_tokenizer,
    load_with_missing_keys,
    max_positions,
)
from distil_nlp.models.positions import usable_positions
from distil_nlp.models.size import ModelSize, size_of
from distil_nlp.models.student import StudentReport, build_student, choose_layers, start_from_checkpoint

__all__ = [
    "ModelSize",
    "StudentReport",
    "build_student",
    "check_labels",
    "check_vocabulary",
    "check_words",
    "choose_layers",
    "commit_of",
    "load_config",
    "load_model",
    "load_tokenizer",
    "load_with_missing_keys",
    "max_positions",
    "size_of",
    "start_from_checkpoint",
    "usable_positions",
]
