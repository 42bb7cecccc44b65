"""What trainings took, all together: steps, seconds, tokens, operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distil_nlp.training.token_counter import TOKENS_BACKWARD, TOKENS_FORWARD

COUNTED = (TOKENS_FORWARD, TOKENS_BACKWARD, "flops")
"""What a training's record has only where it could be counted."""


def total_compute(trainings: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return steps, seconds, tokens and operations of several trainings together."""
    totals: dict[str, float | None] = {
        name: sum(training[name] for training in trainings) for name in ("steps", "seconds", "tokens")
    }
    return {**totals, **{name: total_of(name, trainings) for name in COUNTED}}


def total_of(name: str, trainings: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the sum of one of `COUNTED` over several trainings; None if that of one is not known."""
    counts = [training.get(name) for training in trainings]
    return None if None in counts else sum(filter(None, counts))
