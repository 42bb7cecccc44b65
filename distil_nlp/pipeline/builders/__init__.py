"""Builders of objects from the sections of a recipe; packages below `pipeline` know no recipe."""

from distil_nlp.pipeline.builders.data import (
    augmentation_arguments,
    check_inputs,
    configuration_of,
    data_name,
    folder_name,
    task_of,
    transfer_set,
    with_seed,
)
from distil_nlp.pipeline.builders.objective import objective_from
from distil_nlp.pipeline.builders.probe import probe_of, validate_probe
from distil_nlp.pipeline.builders.pruning import Cut, cut_from, pruning_of
from distil_nlp.pipeline.builders.student import (
    check_student,
    copied_layers,
    lone_student,
    random_student,
    student_from,
    validate_description,
)
from distil_nlp.pipeline.builders.teacher import (
    label_names,
    mixing_of,
    self_teacher,
    single_teachers,
    source_of,
    teacher_cache,
    teacher_dtype,
    without_needless_finetuning,
)
from distil_nlp.pipeline.builders.tokenizers import tokenizers_of
from distil_nlp.pipeline.builders.training import DEFAULT_SEED, is_lower_better, training_arguments
from distil_nlp.pipeline.builders.vocabulary import starting_model, vocabulary_of, with_vocabulary

__all__ = [
    "DEFAULT_SEED",
    "Cut",
    "augmentation_arguments",
    "check_inputs",
    "check_student",
    "configuration_of",
    "copied_layers",
    "cut_from",
    "data_name",
    "folder_name",
    "is_lower_better",
    "label_names",
    "lone_student",
    "mixing_of",
    "objective_from",
    "probe_of",
    "pruning_of",
    "random_student",
    "self_teacher",
    "single_teachers",
    "source_of",
    "starting_model",
    "student_from",
    "task_of",
    "teacher_cache",
    "teacher_dtype",
    "tokenizers_of",
    "training_arguments",
    "transfer_set",
    "validate_description",
    "validate_probe",
    "vocabulary_of",
    "with_seed",
    "with_vocabulary",
    "without_needless_finetuning",
]
