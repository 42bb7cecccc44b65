"""The schema of a recipe: one typed section for each part of a run, a file for each.

A recipe is data: numbers, names and lists. Code is run for `plugins` alone, which name files or modules of one's own.
"""

from distil_nlp.recipe.sections.base import Section, section_class
from distil_nlp.recipe.sections.data import DataSection
from distil_nlp.recipe.sections.evaluation import ProbeSection
from distil_nlp.recipe.sections.objective import (
    BalanceSection,
    Change,
    ObjectiveBase,
    TermSection,
    WeightSchedule,
    objective_section,
    term_section,
)
from distil_nlp.recipe.sections.recipe import Recipe
from distil_nlp.recipe.sections.shape import BudgetSection, PruningSection, ShapeSection
from distil_nlp.recipe.sections.student import PeerSection, StudentSection
from distil_nlp.recipe.sections.teacher import ColumnsSection, TeacherMember, TeacherSection, member_name

__all__ = [
    "BalanceSection",
    "BudgetSection",
    "Change",
    "ColumnsSection",
    "DataSection",
    "ObjectiveBase",
    "PeerSection",
    "ProbeSection",
    "PruningSection",
    "Recipe",
    "Section",
    "ShapeSection",
    "StudentSection",
    "TeacherMember",
    "TeacherSection",
    "TermSection",
    "WeightSchedule",
    "member_name",
    "objective_section",
    "section_class",
    "term_section",
]
