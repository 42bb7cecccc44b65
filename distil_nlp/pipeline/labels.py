"""Labels of the training rows against the terms that cannot do without."""

from __future__ import annotations

from distil_nlp.data import TransferSet
from distil_nlp.data.query_groups import have_pairs
from distil_nlp.errors import UserError
from distil_nlp.objective import LossTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.recipe import Recipe


def check_labels(recipe: Recipe, data: TransferSet, objective: Objective) -> None:
    """Raise UserError for a term whose rows are labelled ones, where no training row has such a label."""
    for term in objective.terms:
        needed = term.needed_labels(data.kind)
        if needed is not None and not data.num_labelled:
            raise _error(recipe, term, "labelled training rows", f"no label in {len(data.split.train):,} rows")
        if needed == "pairs" and not have_pairs(data.split.train["labels"][:]):
            rows = "training rows with documents of unlike relevance for a query"
            raise _error(recipe, term, rows, "the same relevance for all documents of each query")


def _error(recipe: Recipe, term: LossTerm, expected: str, got: str) -> UserError:
    """Return the error for a term that would look at no row."""
    name = f"objective.{term.name}"
    fix = term.without_labels or f"leave it out ({name}=null)"
    return UserError(
        name,
        f"{expected} (data.label_column={recipe.data.label_column})",
        got,
        why="the term looks at no others, and would be 0 in every step",
        fix=f"{fix}, or name the column of labels",
    )
