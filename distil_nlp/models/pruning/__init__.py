"""Structured pruning: a student that keeps the important parts of its teacher, repaired before its first step."""

from distil_nlp.models.pruning.axes import Axes, ParameterAxis, parameter_axes
from distil_nlp.models.pruning.cut import Kept, check_axes, cut_model, everything, shares_heads
from distil_nlp.models.pruning.importance import Criterion, Importance, measure_importance
from distil_nlp.models.pruning.repair import repair

__all__ = [
    "Axes",
    "Criterion",
    "Importance",
    "Kept",
    "ParameterAxis",
    "check_axes",
    "cut_model",
    "everything",
    "measure_importance",
    "parameter_axes",
    "repair",
    "shares_heads",
]
