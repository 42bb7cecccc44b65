"""Checks of a run whose teacher reads other tokens than its student, and what its results tell of them."""

from __future__ import annotations

from typing import Any

from distil_nlp.data import TransferSet
from distil_nlp.errors import UserError, listed
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.signal_request import bound_objective
from distil_nlp.reporting.tokens import participation, vocabulary_sentence
from distil_nlp.teachers.alignment import validate_alignment
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def load_data(plan: RunPlan) -> tuple[RunTokenizers, TransferSet]:
    """Return the tokenizers of a run, and its rows as all models read them.

    Raises:
        UserError: for inputs longer than a teacher's positions, for data that cannot be loaded, and as `tokenizers_of`
            does.
    """
    builders.check_inputs(plan.recipe)
    tokenizers = _tokenizers_of(plan)
    if vocabulary := builders.vocabulary_of(plan.recipe):
        logger.info(vocabulary_sentence(vocabulary.facts))
    data = builders.transfer_set(plan.recipe, plan.task, tokenizers, plan.args)
    if data.split.cut:
        logger.info(f"teacher and student have other tokens. {tokens_sentence(plan, data)}")
    return tokenizers, data


def _tokenizers_of(plan: RunPlan) -> RunTokenizers:
    vocabulary = builders.vocabulary_of(plan.recipe)
    return builders.tokenizers_of(plan.recipe, plan.task.kind, vocabulary.tokenizer if vocabulary else None)


def vocabulary_block(plan: RunPlan) -> dict[str, Any]:
    """Return the block `vocabulary` of `results.json`; {} for a student that knows all words of its teacher."""
    vocabulary = builders.vocabulary_of(plan.recipe)
    return {"vocabulary": vocabulary.facts} if vocabulary else {}


def tokens_sentence(plan: RunPlan, data: TransferSet) -> str:
    """Return how many rows, tokens and words took part, and how many rows were cut so that all read the same text."""
    return participation(tokens_block(plan, data)["tokenizers"])


def tokens_block(plan: RunPlan, data: TransferSet) -> dict[str, Any]:
    """Return the block `tokenizers` of `results.json`; {} where all models have one vocabulary."""
    if not data.split.cut:
        return {}
    names = [one.teacher.name for one in builders.single_teachers(plan.recipe)]
    section = plan.recipe.student
    others = [name for name, encoding in zip(names, data.teachers, strict=True) if encoding]
    rows = {"train": data.split.train, **data.split.evaluation}
    return {
        "tokenizers": {
            "student": section.name or names[0],
            "others": list(dict.fromkeys(others)),
            "rows": {
                name: {"rows": len(own), "cut": data.split.cut[name], **data.split.partners[name]}
                for name, own in rows.items()
            },
        }
    }


def validate_tokens(plan: RunPlan) -> None:
    """Raise UserError for settings that need one vocabulary, where teachers and student have several."""
    student = plan.recipe.student
    if student.name is None and student.vocabulary is None and not plan.recipe.teacher.ensemble:
        return  # the student is made of the teacher
    try:
        tokenizers = _tokenizers_of(plan)
    except Exception:
        return  # what is wrong with them is told where they are loaded
    if not tokenizers.further:
        return
    _check_augmentation(plan)
    _check_chain(plan)
    if plan.task.kind.predicts_words:
        _check_words(plan)
    objective = bound_objective(plan) if plan.asks_teacher else None
    if objective is None:
        return  # what is wrong with it is told where it is loaded
    if tokenizers.teachers[0]:
        validate_alignment(objective)
    elif objective.request("teacher").input_gradient:
        validate_alignment(objective)  # of all teachers as one model


def _check_augmentation(plan: RunPlan) -> None:
    section = plan.recipe.data.augmentation
    used = [f"data.augmentation.{name}" for name, value in dict(section).items() if value is not None]
    if used:
        raise UserError(
            ", ".join(used),
            "rows as they are, where teacher and student have other tokens",
            listed(used),
            why="tokens are changed, and those of the one are not those of the other",
            fix="leave data.augmentation out, or take models of one vocabulary",
        )


def _check_words(plan: RunPlan) -> None:
    """Raise UserError for settings under which not the same words of both vocabularies would be masked and compared."""
    recipe = plan.recipe
    wrong = {
        "data.masking.whole_words": (not recipe.data.masking.whole_words, "true", "tokens of the one are not words"),
        "data.masking.spans": (recipe.data.masking.spans, "false", "spans are drawn by one tokenizer's words"),
        "data.streaming": (recipe.data.streaming, "false", "blocks are cut for both tokenizers before they are read"),
        "teacher.cache": (recipe.teacher.cache is not None, "null", "a teacher's likeliest words are not all known"),
        "objective.r_drop": (plan.objective.passes > 1, "null", "the student reads a row twice, and its words once"),
    }
    for key, (is_wrong, needed, why) in wrong.items():
        if is_wrong:
            raise UserError(
                key,
                f"{needed} where teacher and student have vocabularies of their own",
                "another value",
                why=f"{why}, and words are compared",
                fix=f"set {key}={needed}, or take models of one vocabulary",
            )


def _check_chain(plan: RunPlan) -> None:
    teacher, student = plan.recipe.teacher, plan.recipe.student
    used = {
        "teacher.assistants": bool(teacher.assistants),
        "student.generations": student.generations > 1,
        "teacher.self": teacher.self is not None and teacher.self.kind == "pretrained",
    }
    for key in (key for key, is_used in used.items() if is_used):
        raise UserError(
            key,
            "a teacher that teaches alone, where teacher and student have other tokens",
            key,
            why="the students in between would have the tokens of the one or of the other",
            fix="leave it out, or take models of one vocabulary",
        )
