"""Loading of models, and construction of the student from its teacher."""

from distil_nlp.models.classes import (
    ClassMapping,
    check_meaning,
    class_mapping,
    class_names,
    label_outputs,
    names_classes,
)
from distil_nlp.models.compatibility import check_vocabulary, check_words, count_ids, has_vocabulary_of
from distil_nlp.models.heads import has_head
from distil_nlp.models.layer_choice import choose_layers
from distil_nlp.models.loading import (
    commit_of,
    load_config,
    load_model,
    load_tokenizer,
    load_with_missing_keys,
    max_positions,
)
from distil_nlp.models.positions import usable_positions
from distil_nlp.models.sentence_encoder import SentenceEncoder, save_sentence_encoder
from distil_nlp.models.size import ModelSize, size_of
from distil_nlp.models.student import build_student, start_from_checkpoint
from distil_nlp.models.student_report import StudentReport

__all__ = [
    "ClassMapping",
    "ModelSize",
    "SentenceEncoder",
    "StudentReport",
    "build_student",
    "check_meaning",
    "check_vocabulary",
    "check_words",
    "choose_layers",
    "class_mapping",
    "class_names",
    "commit_of",
    "count_ids",
    "has_head",
    "has_vocabulary_of",
    "label_outputs",
    "load_config",
    "load_model",
    "load_tokenizer",
    "load_with_missing_keys",
    "max_positions",
    "names_classes",
    "save_sentence_encoder",
    "size_of",
    "start_from_checkpoint",
    "usable_positions",
]
