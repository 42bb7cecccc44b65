"""The rows of `study.json`, and the table of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import decimal, percent
from distil_nlp.reporting.scores import headline_name, headline_score, scored_models
from distil_nlp.reporting.tables import format_gain
from distil_nlp.reporting.verdicts import stop_verdict
from distil_nlp.results import RunResults, has_results, read_runs
from distil_nlp.study.comparison import gain_over
from distil_nlp.study.plan import StudyPlan

MEMORY_FILE = "peak_mib.txt"
"""The peak memory of a run's process in MiB, in the run's folder."""

QUALITY, COST = slice(1, 7), slice(7, None)
"""Columns of `method_table`."""

_KEYS = {
    "labels only": "labels alone",
    "initialised student": "untrained copy",
    "majority class": "one class for all",
    "mean of the training labels": "the mean for all",
}
"""Name of a baseline → its key in `beside` of `study.json`, which keeps the words of the first version."""


def study_rows(plan: StudyPlan, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the row of each finished run: scores as fractions, seconds per step, peak memory in MiB."""
    for task in plan.tasks or []:
        done = {name: folder / task / name for name in plan.methods if has_results(folder / task / name)}
        runs = dict(zip(done, read_runs(list(done.values())), strict=True)) if done else {}
        baseline = runs.get(plan.compared_with)
        for name, run in runs.items():
            score: Any = headline_score(run, "student")
            teacher: Any = headline_score(run, "teacher")
            seconds = _seconds(run)
            others = {model.label: model.score(run.metric) for model in scored_models(run) if model.role != "student"}
            yield {
                "task": task, "method": name, "metric": headline_name(run), "terms": sorted(_terms(run)),
                "median": score.median, "low": score.span[0], "high": score.span[1], "seeds": len(score.values),
                "values": list(score.values), "compared_with": plan.compared_with,
                "gain": gain_over(run, baseline) if baseline and run is not baseline else None,
                "teacher": teacher and teacher.median,  # answers in the data need not be scored
                "beside": {_KEYS.get(label, label): score.median for label, score in others.items() if score},
                "agreement": run.get("fidelity.agreement"), "stop": stop_verdict(run),
                "steps": run.get("training.steps"), "seconds_per_step": seconds,
                "times_plain": seconds / _seconds(baseline) if baseline else None,
                "peak_mib": _memory(done[name] / MEMORY_FILE),
            }  # fmt: skip


def _seconds(run: RunResults) -> float:
    """Return the seconds of a training step."""
    return run.get("training.seconds") / run.get("training.steps")


def _memory(file: Path) -> int | None:
    """Return the peak memory in a file; None where it is missing or damaged."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _terms(run: RunResults) -> Mapping[str, Any]:
    """Return the terms of a run's objective."""
    return {name: term for name, term in (run.get("recipe.objective") or {}).items() if term}


def reference_scores(row: Mapping[str, Any]) -> str:
    """Return the scores of teacher and baselines, beside which the methods are read."""
    labels = {key: label for label, key in _KEYS.items()}
    return ", ".join(f"{labels.get(key, key)} {decimal(score)}" for key, score in row["beside"].items())


def method_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a table with a line for each method, its head first."""
    baseline = rows[0]["compared_with"]
    gain = f"− {baseline}, points"
    head = ["method", "median", "seeds", gain, "won", "retention", "agreement", "s/step", f"× {baseline}", "MiB"]
    return [head, *map(_cells, rows)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Return a method's line."""
    gain = row["gain"]
    return [
        row["method"],
        decimal(row["median"]),
        " ".join(map(decimal, row["values"])),
        format_gain(gain),
        f"{gain['won']} of {gain['seeds']}" if gain else "",
        percent(row["median"] / row["teacher"]) if (row["teacher"] or 0) > 0 else "",
        percent(row["agreement"]),
        f"{row['seconds_per_step']:.3g}",
        f"{row['times_plain']:.2f}" if row["times_plain"] else "",
        f"{row['peak_mib']:,}" if row["peak_mib"] else "",
    ]
