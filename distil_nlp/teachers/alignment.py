"""Alignment of a teacher that reads other tokens than its student: its signals, told of the student's tokens.

The teacher's states are captured at all of its tokens. A token of the student's has the mean of those that cover some
of its characters; see `distil_nlp.data.token_alignment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distil_nlp.data.encodings import PARTNERED
from distil_nlp.data.partners import means_of
from distil_nlp.errors import UserError, listed
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LossTerm, ModelShape, OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import SignalRequest, Signals
from distil_nlp.tasks import TaskKind
from distil_nlp.tasks.kind import ALIGNED, MATCHED

_SHAPE = ModelShape(num_layers=2, hidden_size=4, num_heads=2, feed_forward=4, num_labels=3)
_OF_PARTNERS = (ALIGNED, MATCHED)


def request_of_all_tokens(request: SignalRequest) -> SignalRequest:
    """Return the request with all of the teacher's tokens in place of those that have partners among the student's."""
    return replace(request, hidden=_of_all(request.hidden), activations=_of_all(request.activations))


def _of_all(wanted: Iterable[tuple[int, str]]) -> frozenset[tuple[int, str]]:
    return frozenset((layer, "all" if rows.startswith(_OF_PARTNERS) else rows) for layer, rows in wanted)


def aligned_signals(signals: Signals, wanted: SignalRequest, batch: Mapping[str, Any], kind: TaskKind) -> Signals:
    """Return the signals that were wanted of the student's tokens, from those of `request_of_all_tokens`.

    Args:
        signals: of the teacher's own tokens.
        wanted: by the names of the student's row sets.
        batch: of a `RowCollator`, with the partners of these sets.
        kind: kind of task; logits of tokens are told by row set.
    """
    logits: Any = signals.logits
    if logits is not None and kind.level == "token":
        read = {rows: bags for rows, bags in batch[PARTNERED].items() if f"logits/{rows}" in batch["rows"]}
        logits = {rows: means_of(logits, bags) for rows, bags in read.items()}
    return replace(
        signals,
        logits=logits,
        hidden=_means(signals.hidden, wanted.hidden, batch),
        activations=_means(signals.activations, wanted.activations, batch),
    )


def _means(
    states: Mapping[tuple[int, str], Tensor], wanted: Iterable[tuple[int, str]], batch: Mapping[str, Any]
) -> dict[tuple[int, str], Tensor]:
    return {
        (layer, rows): means_of(states[layer, "all"], batch[PARTNERED][rows])
        if rows.startswith(_OF_PARTNERS)
        else states[layer, rows]
        for layer, rows in wanted
    }


def validate_alignment(objective: Objective, request: SignalRequest | None = None) -> None:
    """Validate that a bound objective compares nothing between two tokens, nor gradients of them.

    Args:
        objective: bound.
        request: what is asked of the teacher in question; all that the objective asks if None.

    Raises:
        UserError: if it does, with the terms that it could have instead.
    """
    if request is not None and not _reads_pairs(request) and not objective.kind.predicts_words:
        return
    names = [term.name for term in objective.terms if term.needs_teacher and not _is_aligned(term)]
    if not names:
        return
    raise UserError(
        "objective",
        "terms on outputs or on states, where teacher and student have other tokens",
        listed(names),
        why="attention, relations, gradients at the input, and words that one vocabulary lacks, are of one model alone",
        fix=f"leave {'it' if len(names) == 1 else 'them'} out; these work: {', '.join(aligned_terms(objective.kind))}",
    )


def aligned_terms(kind: TaskKind) -> list[str]:
    """Return the terms on a teacher that can be had where it reads other tokens."""
    return [term.name for term in TERMS.values() if term.applies_to(kind) and _can_be_aligned(term(), kind)]


def _can_be_aligned(term: LossTerm, kind: TaskKind) -> bool:
    with torch.random.fork_rng(devices=[]):
        term.bind(kind, _SHAPE, _SHAPE)
    return term.needs_teacher and _is_aligned(term)


def _is_aligned(term: LossTerm) -> bool:
    """Return whether a bound term on a teacher can be had: of a vocabulary, it must know all other words as one.

    And words that the teacher draws are none that the student could read.
    """
    if term.samples_text:
        return False
    if isinstance(term, OutputTerm) and term.kind.predicts_words and not term.accepts_top_logits:
        return False
    return not _reads_pairs(term.request("teacher"))


def _reads_pairs(request: SignalRequest) -> bool:
    """Return whether any of the signals are between tokens, or at the input of a model."""
    return bool(request.attention or request.input_gradient or request.states)
