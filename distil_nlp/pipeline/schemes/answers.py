"""Answers in the data's columns as the teacher: of an LLM, an API or an old system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distil_nlp.errors import UserError
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import ColumnsSection
from distil_nlp.recipe.validate import is_set
from distil_nlp.teachers.answers import validate_answers

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan

_MODEL_KEYS = {
    "cache": "there is nothing to cache: the answers are in the data",
    "finetune": "no model teaches, so that none is trained first",
    "ensemble": "beside models, answers are a member: teacher.ensemble=[{columns: {…}, weight: …}]",
    "assistants": "assistants are made of the teacher's layers",
    "checkpoints": "no model teaches, so that it was never trained on a way",
    "self": "the answers teach, not the student",
    "reseed": "no model teaches, so that none is trained for each seed",
    "dtype": "no model teaches, so that none has a precision",
    "finetune_when": "no model teaches, so that none is trained first",
}
"""Key of `teacher` that is about a model which teaches → why it does not go with answers."""
_STUDENT_KEYS = {
    "replacing": "the teacher's layers would run in place of the student's, and here no model teaches",
    "augment": "its wider net is compared with a teacher that is a model",
    "generations": "the second generation would have a model as its teacher",
}
"""Key of `student` → why it does not go with answers."""


def _answers(recipe: Recipe) -> str:
    section = recipe.teacher.columns
    assert section is not None  # or the recipe would not have the scheme
    by = f" by {section.source}" if section.source else ""
    how = {"label": "labels", "scores": "numbers"}.get(section.forms[0], section.forms[0])
    names = ", ".join(answer_columns(section))
    return f"No model taught: the student was distilled from answers{by} in the data’s columns ({how}: {names})."


def answer_columns(section: ColumnsSection) -> list[str]:
    """Return the names of the columns with the answers themselves."""
    columns = getattr(section, section.forms[0])
    if isinstance(columns, str):
        return [columns]
    return list(columns.values() if isinstance(columns, dict) else columns)


def check_answer_columns(section: ColumnsSection, where: str) -> None:
    """Raise UserError unless columns with answers are named in one form."""
    if len(section.forms) != 1:
        raise UserError(
            where,
            "one of probabilities, logits, scores and label",
            ", ".join(section.forms) or "none of them",
            why="they are forms of the same answers",
            fix="name the columns in one form",
        )
    if section.forms != ["label"] and is_set(section, "confidence"):
        raise UserError(
            f"{where}.confidence",
            f"{where}.label beside it",
            section.forms[0],
            why="these have probabilities of their own",
            fix="leave confidence out",
        )


def _check(plan: RunPlan) -> None:
    """Raise UserError for what does not go together with answers, or needs a model that teaches."""
    recipe, section = plan.recipe, plan.recipe.teacher.columns
    assert section is not None  # or the recipe would not have the scheme
    check_answer_columns(section, "teacher.columns")
    for place, keys in (("teacher", _MODEL_KEYS), ("student", _STUDENT_KEYS)):
        for key, why in keys.items():
            if is_set(getattr(recipe, place), key):
                raise UserError(f"{place}.{key}", "none with teacher.columns", "both", why=why, fix="leave one out")
    plain = [name for name in recipe.evaluation.baselines if name in ("plain", "equal_compute")]
    if plain:
        raise UserError(
            "evaluation.baselines",
            "no plain distillation with teacher.columns",
            ", ".join(plain),
            why="it is taught by a model, and here none teaches",
            fix="compare with no_distillation, which learns from the labels",
        )
    validate_answers(plan.objective, dict(recipe.data.augmentation))


ANSWERS_IN_COLUMNS = Scheme("teacher", "columns", "answers in the data’s columns", None, _answers, check=_check)
