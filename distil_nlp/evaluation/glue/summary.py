"""Summary of scores over seeds and tasks: medians, and averages with honest names."""

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
"""Key of the mean over a task's metrics, which the leaderboard averages."""
_MISMATCHED = "validation_mismatched/accuracy"


def with_score(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a task's metrics and their mean, the task's score in GLUE.

    It is the mean of F1 and accuracy (MRPC, QQP), of Pearson and Spearman (STS-B), of matched and mismatched (MNLI).
    MNLI's metrics are returned by split, without the plain name that repeats the first split.

    An undefined correlation, of a model with constant outputs, counts as 0, as Matthews' does: leaving it out would
    raise the score.
    """
    by_split = {name: value for name, value in metrics.items() if "/" in name}
    kept = {name: 0.0 if math.isnan(value) else value for name, value in (by_split or metrics).items()}
    return {**kept, SCORE: statistics.fmean(kept.values())}


def over_seeds(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return task → metric → {seeds, values, median, minimum, maximum}, tasks in GLUE's order, seeds ascending."""
    summary: dict[str, dict[str, Any]] = {}
    for task in GLUE:
        runs = sorted((record for record in records if record["task"] == task), key=lambda record: record["seed"])
        if runs:
            seeds = [run["seed"] for run in runs]
            summary[task] = {
                name: summarize_seeds(seeds, [run["metrics"][name] for run in runs]) for name in runs[0]["metrics"]
            }
    return summary


def averages(tasks: Mapping[str, Mapping[str, Any]], is_trial: bool) -> dict[str, float]:
    """Return name → mean over tasks of the median score; {} for a single task.

    Only all nine tasks (or eight without WNLI, as most papers report), trained in full and with both parts of MNLI, are
    called GLUE's average.
    """
    scores = {task: metrics[SCORE]["median"] for task, metrics in tasks.items()}
    without = {task: value for task, value in scores.items() if task != "wnli"}
    if len(without) == len(GLUE) - 1 and _MISMATCHED in tasks["mnli"] and not is_trial:
        means = {"GLUE dev average without WNLI, 8 tasks": statistics.fmean(without.values())}
        if "wnli" in scores:
            means = {"GLUE dev average, 9 tasks": statistics.fmean(scores.values())} | means
        return means
    names = [task if task != "mnli" or _MISMATCHED in tasks[task] else "mnli (matched only)" for task in scores]
    name = f"mean of {len(scores)} tasks on dev{', a trial' if is_trial else ''} ({', '.join(names)})"
    return {name: statistics.fmean(scores.values())} if len(scores) > 1 else {}


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as an aligned table, for the terminal."""
    means = [f"{name}: {decimal(value)}" for name, value in summary["averages"].items()]
    return "\n".join(["", layout.terminal_table(_rows(summary), names=2), "", *means, *_notes(summary), ""])


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as Markdown, for `glue.md`."""
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
    """Return rows (task, metric, median, range, seeds); the score only where it is a mean of several metrics."""
    rows: list[tuple[str, ...]] = [("task", "metric", "median", "range", "seeds")]
    for task, metrics in summary["tasks"].items():
        kept = metrics if len(metrics) > 2 else {name: values for name, values in metrics.items() if name != SCORE}
        for name, values in kept.items():
            label = f"{SCORE}: mean of these" if name == SCORE else metric_name(name, GLUE[task].kind)
            low_to_high = span(values["minimum"], values["maximum"])
            rows.append((task, label, decimal(values["median"]), low_to_high, str(len(values["seeds"]))))
    return rows


def _notes(summary: Mapping[str, Any]) -> list[str]:
    limits = {name: summary["settings"][name] for name in ("max_train_rows", "max_steps") if summary["settings"][name]}
    if not limits:
        return []
    return [f"a trial ({', '.join(f'{k}={v}' for k, v in limits.items())}): not comparable to published scores"]
