"""The table of schemes in which further modules train together with the student, by their keys in `student`."""

from __future__ import annotations

from distil_nlp.errors import UserError
from distil_nlp.pipeline.joint.base import JointScheme
from distil_nlp.pipeline.joint.branches import Branches
from distil_nlp.pipeline.joint.exits import Exits
from distil_nlp.pipeline.joint.peers import Peers
from distil_nlp.recipe import Recipe

JOINT_SCHEMES = {scheme.key: scheme for scheme in (Exits, Peers, Branches)}


def scheme_of(recipe: Recipe) -> JointScheme:
    """Return the scheme of a recipe's student; one without further modules if it names none.

    Raises:
        UserError: if it names several.
    """
    named = [key for key in JOINT_SCHEMES if getattr(recipe.student, key) is not None]
    if len(named) > 1:
        raise UserError(
            "student",
            f"one of {', '.join(JOINT_SCHEMES)}",
            " and ".join(named),
            why="each of them decides what else trains together with the student, and what leaves at the end",
            fix="leave the others out",
        )
    return JOINT_SCHEMES[named[0]](recipe.student) if named else JointScheme(recipe.student)
