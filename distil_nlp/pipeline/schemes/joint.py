"""Schemes whose modules train together with the student; `pipeline/joint` has what they are, and their checks."""

from __future__ import annotations

from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe


def _exits(recipe: Recipe) -> str:
    after = ", ".join(map(str, recipe.student.exits.after if recipe.student.exits else []))
    return f"Exits after {after} layers trained together with the student, and learned from its output."


def _peers(recipe: Recipe) -> str:
    models = recipe.student.peers.models if recipe.student.peers else 1
    count = models if isinstance(models, int) else 1 + len(models)
    return f"{count} students trained together and learned from each other; the best is kept."


def _branches(recipe: Recipe) -> str:
    count = recipe.student.branches.models if recipe.student.branches else 1
    return f"{count} branches over shared layers trained together, taught by their gated sum; the best is kept."


EARLY_EXITS = Scheme("student", "exits", "exits (Be Your Own Teacher)", "1905.08094", _exits)
PEERS = Scheme("student", "peers", "deep mutual learning", "1706.00384", _peers)
BRANCHES = Scheme("student", "branches", "branches (ONE)", "1806.04606", _branches)
