"""Route-constrained optimisation (RCO): the teacher's checkpoints teach one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distil_nlp.errors import UserError
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _route(recipe: Recipe) -> str:
    parts = ", ".join(f"{fraction:.0%}" for fraction in recipe.teacher.checkpoints or ())
    return f"The teacher taught as it was after {parts} of its fine-tuning, one after another (RCO, arXiv:1904.09149)."


def _check(plan: RunPlan) -> None:
    """Raise UserError where a teacher has no checkpoints to teach, or where they cannot all be asked."""
    section = plan.recipe.teacher
    if section.finetune is None or section.finetune_when != "always":
        raise UserError(
            "teacher.checkpoints",
            "a teacher that is fine-tuned here",
            "teacher.finetune=null" if section.finetune is None else f"teacher.finetune_when={section.finetune_when}",
            why="they are kept while it is fine-tuned",
            fix="set teacher.finetune={} and finetune_when=always, or leave checkpoints out",
        )
    others = [name for name in ("ensemble", "cache") if getattr(section, name) is not None]
    if others:
        raise UserError(
            "teacher.checkpoints",
            f"no teacher.{others[0]} beside them",
            f"teacher.{others[0]} too",
            why="a cache has the outputs of one teacher, and the steps are divided among the checkpoints of one",
            fix="leave one of the two out",
        )


TEACHER_ROUTE = Scheme(
    "teacher", "checkpoints", "route of the teacher’s checkpoints", "1904.09149", _route, check=_check
)
