"""`Scheme`: a key of a recipe that changes who teaches, or how often: its sentence, and what it does not go with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distil_nlp.recipe import Recipe
from distil_nlp.recipe.validate import is_set
from distil_nlp.training.extension import Extension

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan  # which imports the table of schemes


def _accept(plan: RunPlan) -> None:
    """Accept any plan."""


@dataclass(frozen=True)
class Scheme:
    """A training scheme.

    Attributes:
        section, key: where a recipe switches it on.
        title: its name.
        paper: number of its paper on arXiv; None where the sentence has it.
        sentence: says what is done, for report and card.
        details: further keys of the section that have a meaning with it alone.
        check: raises UserError for a plan that it does not go with, before data and models are loaded.
        extension: makes what it does in the steps of the student, of a recipe and the teacher; None for a scheme that
            leaves them as they are.
    """

    section: str
    key: str
    title: str
    paper: str | None
    sentence: Callable[[Recipe], str]
    details: tuple[str, ...] = ()
    check: Callable[[RunPlan], None] = _accept
    extension: Callable[[Recipe, Any], Extension] | None = None

    @property
    def place(self) -> str:
        """The key that switches it on, such as `teacher.assistants`."""
        return f"{self.section}.{self.key}"

    def is_used(self, recipe: Recipe) -> bool:
        """Return whether a recipe has it."""
        section = getattr(recipe, self.section)
        is_off = self.section == "objective" and not getattr(getattr(section, self.key), "weight", 0)
        return is_set(section, self.key) and not is_off

    def to_dict(self, recipe: Recipe) -> dict[str, Any]:
        """Return a line of the block `schemes` of `results.json`."""
        return {"key": self.place, "title": self.title, "paper": self.paper, "sentence": self.sentence(recipe)}
