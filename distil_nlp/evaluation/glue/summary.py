"""Several seeds and tasks in a few numbers: medians, and averages that are called what they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from distil_nlp.reporting import markdown as layout
from distil_nlp.reporting.formatting import decimal, span
from distil_nlp.reporting.scores import metric_name
from distil_nlp.results import summarize_seeds
from distil_nlp.tasks import GLUE

SCORE = "score"
"""A task's own mean over its metrics, beside them: what the leaderboard averages."""
_MISMATCHED = "validation_mismatched/accuracy"


def with_score(metrics: Mapping[str, float]) -> dict[str, float]:
    """A task's metrics (MNLI's by split, without the plain name that repeats the first) and their mean, as GLUE takes
    it: of F1 and accuracy (MRPC, QQP), of Pearson and Spearman (STS-B), of matched and mismatched (MNLI).

    A correlation that does not exist, of a model that answers always the same, counts as 0, as Matthews' does:
    leaving it out would flatter.
    """
    by_split = {name: value for name, value in metrics.items() if "/" in name}
    kept = {name: 0.0 if math.isnan(value) else value for name, value in (by_split or metrics).items()}
    return {**kept, SCORE: statistics.fmean(kept.values())}


def over_seeds(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """task → metric → {seeds, values, median, minimum, maximum}; tasks in GLUE's order, seeds ascending."""
    found: dict[str, dict[str, Any]] = {}
    for task in GLUE:
        runs = sorted((one for one in records if one["task"] == task), key=lambda one: one["seed"])
        if runs:
            seeds = [one["seed"] for one in runs]
            found[task] = {
                name: summarize_seeds(seeds, [one["metrics"][name] for one in runs]) for name in runs[0]["metrics"]
            }
    return found


def averages(tasks: Mapping[str, Mapping[str, Any]], is_trial: bool) -> dict[str, float]:
    """Name → mean over tasks of the median score. Only all nine (or eight without WNLI, as most papers report), trained
    in full and with both parts of MNLI, are called GLUE's average; one task has none."""
    scores = {task: metrics[SCORE]["median"] for task, metrics in tasks.items()}
    without = {task: value for task, value in scores.items() if task != "wnli"}
    if len(without) == len(GLUE) - 1 and _MISMATCHED in tasks["mnli"] and not is_trial:
        found = {"GLUE dev average without WNLI, 8 tasks": statistics.fmean(without.values())}
        if "wnli" in scores:
            found = {"GLUE dev average, 9 tasks": statistics.fmean(scores.values())} | found
        return found
    names = [task if task != "mnli" or _MISMATCHED in tasks[task] else "mnli (matched only)" for task in scores]
    name = f"mean of {len(scores)} tasks on dev{', a trial' if is_trial else ''} ({', '.join(names)})"
    return {name: statistics.fmean(scores.values())} if len(scores) > 1 else {}


def summary_text(summary: Mapping[str, Any]) -> str:
    """The table at the end, aligned."""
    means = [f"{name}: {decimal(value)}" for name, value in summary["averages"].items()]
    return "\n".join(["", layout.aligned_table(_rows(summary), names=2), "", *means, *_notes(summary), ""])


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """`glue.md`."""
    means = [f"- {name}: **{decimal(value)}**" for name, value in summary["averages"].items()]
    settings = ", ".join(f"{name} {value}" for name, value in summary["settings"].items() if value not in (None, False))
    return "\n".join([
        f"# GLUE: {summary['model']['name']}", "",
        "Fine-tuned on each task and scored on its labelled validation (dev) splits; fractions, medians over seeds.",
        f"Data: {summary['data']}. Settings: {settings}.", "",
        layout.markdown_table(_rows(summary)), "",
        *means, *(f"- {note}" for note in _notes(summary)), "",
    ])  # fmt: skip


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(task, metric, median, range, n); the score only where it is a mean of several metrics."""
    rows = [("task", "metric", "median", "range", "seeds")]
    for task, metrics in summary["tasks"].items():
        shown = metrics if len(metrics) > 2 else {name: one for name, one in metrics.items() if name != SCORE}
        for name, one in shown.items():
            label = f"{SCORE}: mean of these" if name == SCORE else metric_name(name, GLUE[task].kind)
            low_to_high = span(one["minimum"], one["maximum"])
            rows.append((task, label, decimal(one["median"]), low_to_high, str(len(one["seeds"]))))
    return rows


def _notes(summary: Mapping[str, Any]) -> list[str]:
    limits = {name: summary["settings"][name] for name in ("max_train_rows", "max_steps") if summary["settings"][name]}
    if not limits:
        return []
    return [f"a trial ({', '.join(f'{k}={v}' for k, v in limits.items())}): not comparable to published scores"]
