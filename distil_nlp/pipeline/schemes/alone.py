"""A check for schemes that change one student's weights, where others train together with it and one of all is kept."""

from __future__ import annotations

from distil_nlp.errors import UserError
from distil_nlp.recipe.sections import StudentSection


def check_no_other_models(student: StudentSection, where: str) -> None:
    """Raise UserError for peers and branches.

    Args:
        student: the recipe's section.
        where: the key that does not go with them.
    """
    for key in ("peers", "branches"):
        if getattr(student, key) is not None:
            raise UserError(
                where,
                f"no student.{key} beside it",
                "both",
                why="the best of several models is kept, and it changes the first one alone",
                fix="leave one of the two out",
            )
