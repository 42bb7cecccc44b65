"""Training schemes: the keys of a recipe that change who teaches, or how often.

To add one: a file with its `Scheme`, and a line in `SCHEMES`. One that reaches into the student's steps names an
`Extension` (`training/extension.py`), which needs no line elsewhere.
"""

from __future__ import annotations

from typing import Any

from distil_nlp.pipeline.schemes.answers import ANSWERS_IN_COLUMNS
from distil_nlp.pipeline.schemes.assistants import ASSISTANTS
from distil_nlp.pipeline.schemes.augment import AUGMENT
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.pipeline.schemes.ensemble import ENSEMBLE
from distil_nlp.pipeline.schemes.generations import GENERATIONS
from distil_nlp.pipeline.schemes.joint import BRANCHES, EARLY_EXITS, PEERS
from distil_nlp.pipeline.schemes.multitask import MULTITASK
from distil_nlp.pipeline.schemes.quantization import QUANTIZATION_AWARE
from distil_nlp.pipeline.schemes.r_drop import R_DROP
from distil_nlp.pipeline.schemes.replacing import REPLACING
from distil_nlp.pipeline.schemes.self_teaching import SELF_TEACHING
from distil_nlp.pipeline.schemes.sparsity import SPARSE
from distil_nlp.pipeline.schemes.teacher_route import TEACHER_ROUTE
from distil_nlp.pipeline.schemes.weight_average import WEIGHT_AVERAGE
from distil_nlp.recipe import Recipe
from distil_nlp.training.extension import Extension

SCHEMES = (
    ANSWERS_IN_COLUMNS,
    ENSEMBLE,
    ASSISTANTS,
    SELF_TEACHING,
    TEACHER_ROUTE,
    REPLACING,
    AUGMENT,
    SPARSE,
    QUANTIZATION_AWARE,
    EARLY_EXITS,
    PEERS,
    BRANCHES,
    WEIGHT_AVERAGE,
    R_DROP,
    GENERATIONS,
    MULTITASK,
)
"""In the order in which they are told."""


def schemes_of(recipe: Recipe) -> list[Scheme]:
    """Return the schemes that a recipe has."""
    return [scheme for scheme in SCHEMES if scheme.is_used(recipe)]


def extensions_of(recipe: Recipe, teacher: Any) -> dict[Scheme, Extension]:
    """Return the schemes of a recipe that do something in the steps of the student, and what.

    Args:
        recipe: of the student.
        teacher: that it learns from: a model, an ensemble, or a configuration.
    """
    used = schemes_of(recipe)
    return {scheme: scheme.extension(recipe, teacher) for scheme in used if scheme.extension is not None}


def without_schemes(recipe: Recipe) -> Recipe:
    """Return the recipe of plain distillation: the teacher, one student, the same terms."""
    plain = recipe.model_copy(deep=True)
    for scheme in SCHEMES:
        section = getattr(plain, scheme.section)
        for key in (scheme.key, *scheme.details):
            setattr(section, key, type(section).model_fields[key].get_default(call_default_factory=True))
    return plain
