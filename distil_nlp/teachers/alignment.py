"""Alignment of teacher and student: which terms can compare them where they read the same text as other tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import get_args, get_type_hints

import torch

from distil_nlp.errors import UserError, listed
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LossTerm, ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import SignalRequest
from distil_nlp.tasks import TaskKind

_ALIGNED = {"cls", "sequences", "labelled"}
"""Row sets that are the same rows whatever the tokens of a text are: sequences, and the first token of each."""
_SHAPE = ModelShape(num_layers=2, hidden_size=4, num_heads=2, feed_forward=4, num_labels=3)


def validate_alignment(objective: Objective, request: SignalRequest | None = None) -> None:
    """Validate that a bound objective compares no tokens.

    Args:
        objective: bound.
        request: what is asked of the teacher in question; all that the objective asks if None.

    Raises:
        UserError: if it does, with the terms that it could have instead.
    """
    if request is not None and not _reads_tokens(request):
        return
    names = [term.name for term in objective.terms if term.needs_teacher and _reads_tokens(term.request("teacher"))]
    if not names:
        return
    raise UserError(
        "objective",
        "terms on outputs, or on the state of each text's first token, where teacher and student have other tokens",
        listed(names),
        why="a token of the one is no token of the other, so that there is nothing to compare it with",
        fix=f"leave {'it' if len(names) == 1 else 'them'} out; these work: {', '.join(aligned_terms(objective.kind))}",
    )


def aligned_terms(kind: TaskKind) -> list[str]:
    """Return the terms on a teacher that compare no tokens, and a key that they need for it, such as `rows=cls`."""
    return [words for term in TERMS.values() if term.applies_to(kind) and (words := _aligned(term, kind))]


def _aligned(term: type[LossTerm], kind: TaskKind) -> str | None:
    """Return a term's name if it compares no tokens, with the key by which it does not; None if it always does."""
    for words, built in _variants(term):
        with torch.random.fork_rng(devices=[]):
            built.bind(kind, _SHAPE, _SHAPE)
        if built.needs_teacher and not _reads_tokens(built.request("teacher")):
            return words
    return None


def _variants(term: type[LossTerm]) -> Iterator[tuple[str, LossTerm]]:
    """Yield a term as it is by default, and over the first tokens if it can be."""
    yield term.name, term()
    if "rows" in inspect.signature(term).parameters and "cls" in get_args(get_type_hints(term.__init__)["rows"]):
        yield f"{term.name} with rows=cls", term(rows="cls")  # type: ignore[call-arg]  # as its signature says


def _reads_tokens(request: SignalRequest) -> bool:
    """Return whether any of the signals are of tokens other than the first."""
    row_sets = {rows for _, rows in (*request.hidden, *request.activations)}
    return bool(row_sets - _ALIGNED or request.attention or request.input_gradient or request.states)
