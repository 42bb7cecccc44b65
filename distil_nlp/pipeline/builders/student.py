"""The recipe section `student`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.errors import UserError
from distil_nlp.models import (
    StudentReport,
    build_student,
    check_vocabulary,
    check_words,
    choose_layers,
    label_outputs,
    load_tokenizer,
    start_from_checkpoint,
    usable_positions,
)
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.sentence_encoder import match_length
from distil_nlp.pipeline.builders.data import check_positions
from distil_nlp.pipeline.builders.pruning import Cut, cut_from, validate_pruning
from distil_nlp.pipeline.builders.vocabulary import with_vocabulary
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.recipe.validate import is_set
from distil_nlp.tasks import Head


def validate_description(section: StudentSection) -> None:
    """Raise UserError if a checkpoint is named and its architecture is described too."""
    unused = [
        key
        for key in ("layers", "num_layers", "architecture", "config", "fresh", "embedding_size")
        if is_set(section, key)
    ]
    if section.name is not None and unused:
        raise UserError(
            "student.name",
            "no other description of the student",
            f"{', '.join(unused)} too",
            why="the checkpoint has its own",
            fix="leave one of the two out",
        )
    validate_pruning(section)


def student_from(
    recipe: Recipe,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    head: Head,
    cut: Cut | None = None,
) -> tuple[PreTrainedModel, StudentReport]:
    """Return the student, built from the teacher or loaded from a checkpoint, and a report of the copied tensors.

    Args:
        recipe: of the student.
        teacher: whole.
        tokenizer: the student's.
        head: of both models.
        cut: what a pruned student is made of; None where any parts of the teacher will do.

    Raises:
        UserError: if a checkpoint is named and its architecture is described too, or its vocabulary is another.
    """
    section = recipe.student
    validate_description(section)
    if section.name is not None:
        if section.vocabulary is None:
            check_vocabulary(tokenizer, load_tokenizer(section.name, section.revision))
        student, report = start_from_checkpoint(section.name, head, section.revision)
        student = with_vocabulary(recipe, student, tokenizer)
        match_length(student, ensemble_members(teacher)[0], report)
        label_outputs(student.config, head)
        return student, report
    teacher = with_vocabulary(recipe, ensemble_members(teacher)[0], tokenizer)
    cut = cut or cut_from(section, teacher, None)
    student, report = build_student(
        cut.model if cut else teacher,
        cut.layers if cut else section.layers,
        num_layers=cut.depth if cut else section.num_layers,
        architecture=section.architecture,
        config_changes=section.config,
        fresh=section.fresh,
        embedding_size=section.embedding_size,
    )
    label_outputs(student.config, head)
    return student, report


def check_student(student: PreTrainedModel, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise an error unless the student has embeddings for all positions and all words.

    Raises:
        UserError: if `data.max_length` or the vocabulary is too large for it.
    """
    check_positions(recipe, usable_positions(student.config), "the student")
    check_words(tokenizer, student.config, "the student")


def copied_layers(section: StudentSection, teacher: Any) -> list[int] | None:
    """Return the teacher's layers that a student is made of; None for one that is not made of them.

    Args:
        section: of the recipe.
        teacher: a model, an ensemble, of which the first counts, or a configuration.
    """
    if section.name is not None or section.layers == "random":
        return None
    config = teacher if isinstance(teacher, PretrainedConfig) else ensemble_members(teacher)[0].config
    return choose_layers(section.layers, config.num_hidden_layers, section.num_layers)


def lone_student(section: StudentSection) -> StudentSection:
    """Return the section of the same student without anything that trains together with it."""
    return section.model_copy(update={"augment": None, "exits": None, "peers": None, "branches": None})


def random_student(section: StudentSection) -> StudentSection:
    """Return the section of the same student with random weights."""
    depth = section.num_layers or (len(section.layers) if isinstance(section.layers, list) else None)
    return section.model_copy(update={"layers": "random", "num_layers": depth})
