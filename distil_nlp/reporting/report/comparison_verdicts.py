"""Verdicts on a comparison: which run is the best, where that is beyond the noise, and what matters most of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from distil_nlp.reporting.formatting import percent, points
from distil_nlp.reporting.report.comparison import same_task
from distil_nlp.reporting.scores import headline_name, headline_score
from distil_nlp.reporting.verdicts import Verdict, stop_verdict, verdicts
from distil_nlp.results import RunResults

GainOver = Callable[[RunResults, RunResults], dict[str, Any] | None]
"""Returns the gain of a run's students over another run's, with its interval; None unless both are of the same rows."""


def best_run(runs: Sequence[RunResults], gain_over: GainOver) -> Verdict | None:
    """Return whether one run is ahead of all others beyond the noise; None where they cannot be compared in pairs.

    Runs whose student is of no use take no part.
    """
    useful = [run for run in runs if not stop_verdict(run)]
    if not useful:
        return Verdict("stop", "Use none of these students: no run has one that knows more than a guess.")
    found = {run.name: headline_score(run, "student") for run in useful}
    scores = {name: (score.median, fmean(score.values)) for name, score in found.items() if score}
    if len(scores) < max(2, len(useful)) or not same_task(useful):
        return None
    best, *others = sorted(useful, key=lambda run: scores[run.name], reverse=True)
    gains = [(other, gain_over(best, other)) for other in others]
    return None if any(gain is None for _, gain in gains) else _compared(best, gains)


def _compared(best: RunResults, gains: Sequence[tuple[RunResults, Any]]) -> Verdict:
    """Return the verdict on the highest score, from its gains over all others, the highest of them first."""
    for other, gain in gains:
        if gain["low"] <= 0:
            noise = f"{best.name} against {other.name}, {_difference(best, gain)}, is within the noise"
            return Verdict("caution", f"Which run is best may be chance: {noise}.")
    other, gain = gains[0]
    return Verdict("good", f"{best.name} is the best: ahead of {other.name}, the next, by {_difference(best, gain)}.")


def _difference(run: RunResults, gain: dict[str, Any]) -> str:
    interval = f"{percent(gain['level'], 0)} interval {points(gain['low'], '+')} to {points(gain['high'], '+')}"
    return f"{points(gain['mean'], '+')} points of {headline_name(run)} ({interval})"


def own_verdicts(runs: Sequence[RunResults]) -> list[Verdict]:
    """Return the most important verdict on each run, after its name."""
    first = ((run, next(iter(verdicts(run)), None)) for run in runs)
    return [Verdict(verdict.severity, f"{run.name}: {verdict.text}") for run, verdict in first if verdict]
