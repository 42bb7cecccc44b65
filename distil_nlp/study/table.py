"""The rows of `study.json`, and the table of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from distil_nlp.pipeline.kept_outputs import OUTPUTS
from distil_nlp.reporting.formatting import decimal, duration, large, milliseconds, percent
from distil_nlp.reporting.latency import Setting, headline_setting, latency_in
from distil_nlp.reporting.scores import SeedScores, headline_name, headline_score, scored_models
from distil_nlp.reporting.tables import format_gain
from distil_nlp.reporting.verdicts import stop_verdict
from distil_nlp.results import RunResults, get_nested, has_results, read_runs
from distil_nlp.study.cells import EQUAL_STEPS, baseline_of, cells_of, short_names
from distil_nlp.study.comparison import gain_over
from distil_nlp.study.plan import SHARE_KEYS, StudyPlan
from distil_nlp.study.processes import MEMORY_FILE, read_peak
from distil_nlp.study.statistics import holm

_QUALITY = ["median", "seeds", "accuracy", "gain", "won", "p, Holm", "retention", "agreement"]
_COST = ["s/step", "× plain", "MiB", "time", "tokens forward", "tokens backward", "operations", "operations ÷ plain"]
_STUDENT = ["layers", "parameters", "in its layers", "MB", "ms", "cut", "start"]
"""Columns of the tables after the method's name; `gain` and `plain` stand for what the baseline is called."""

_SPENT = ("seconds", "tokens_forward", "tokens_backward", "flops")
"""What a student took, in results and rows: all stages of its training schemes together."""
_KEYS = {
    "labels only": "labels alone",
    "initialised student": "untrained copy",
    "majority class": "one class for all",
    "mean of the training labels": "the mean for all",
}
"""Name of a baseline → its key in `beside` of `study.json`, which keeps the words of the first version."""


_NO_CORRELATION = SeedScores(0.0, (0.0,))
"""The score of a single student whose outputs are all the same, as several seeds count it."""


def study_rows(plan: StudyPlan, folder: Path) -> list[dict[str, Any]]:
    """Return the row of each finished run: scores as fractions, seconds per step, peak memory in MiB.

    A gain has the p-value of its own, and `p_holm`, which holds for all comparisons of the task together.
    """
    rows = list(_rows(plan, folder))
    for task in plan.tasks or []:
        gains = [row["gain"] for row in rows if row["task"] == task and row["gain"]]
        for gain, corrected in zip(gains, holm([gain["p_value"] for gain in gains]), strict=True):
            gain["p_holm"] = corrected
    return rows


def add_best(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Add to the rows of one task `best_over`: the gain of the best of them over each other."""
    best = best_row(rows)
    runs = read_runs([folder / row["task"] / row["run"] for row in rows])
    own = next((run for row, run in zip(rows, runs, strict=True) if row is best), None)
    for row, run in zip(rows, runs, strict=True):
        row["best_over"] = own and _gain(own, run)


def best_row(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the row of use with the best mean score, among those that are compared with a baseline; None without any.

    Not the largest gain: at another point the baseline has another score, which may be the reason.
    """
    compared = [row for row in rows if row["gain"] and isfinite(row["gain"]["mean"]) and not row["stop"]]
    return max(compared, key=lambda row: mean(row["values"]), default=None)


def _rows(plan: StudyPlan, folder: Path) -> Iterator[dict[str, Any]]:
    done = [cell for cell in cells_of(plan) if has_results(cell.folder(folder))]
    folders = [cell.folder(folder) for cell in done]
    runs = dict(zip(folders, read_runs(folders) if done else [], strict=True))
    setting = headline_setting(*runs.values())
    for cell in done:
        run = runs[cell.folder(folder)]
        baseline = runs.get(baseline_of(plan, cell).folder(folder))
        score = headline_score(run, "student") or _NO_CORRELATION
        teacher: Any = headline_score(run, "teacher")
        seconds, spent = _seconds(run), spent_on(run)
        models = {model.role: model for model in scored_models(run)}
        others = {model.label: model.score(run.metric) for role, model in models.items() if role != "student"}
        accuracy = models["student"].score("accuracy") if run.metric != "accuracy" else None
        yield {
            "task": cell.task, "method": cell.arm, "point": dict(cell.point), "run": cell.name,
            "metric": headline_name(run), "terms": sorted(_terms(run)),
            "median": score.median, "low": score.span[0], "high": score.span[1], "seeds": len(score.values),
            "values": list(score.values), "accuracy": accuracy and accuracy.median, "compared_with": plan.compared_with,
            "gain": _gain(run, baseline),
            "teacher": teacher and teacher.median,  # answers in the data need not be scored
            "beside": {_KEYS.get(label, label): score.median for label, score in others.items() if score},
            "agreement": run.get("fidelity.agreement"), "stop": stop_verdict(run),
            "steps": run.get("training.steps"), "seconds_per_step": seconds,
            **{key: spent.get(key) for key in _SPENT},
            "training_rows": run.get("rows.labelled"), "interval": run.get("intervals.student"),
            "times_plain": seconds / _seconds(baseline) if baseline else None,
            "flops_ratio": _ratio(spent.get("flops"), spent_on(baseline).get("flops") if baseline else None),
            "peak_mib": read_peak(cell.folder(folder) / MEMORY_FILE),
            "student": _student(run, setting),
        }  # fmt: skip


def _student(run: RunResults, setting: Setting | None) -> dict[str, Any]:
    """Return how large a run's student is, how fast in a setting, and its score as it was cut."""
    return {
        "layers": len(run.get("student.initialisation.teacher_layers") or ()) or None,
        **{key: run.get(f"student.{key}") for key in ("parameters", "encoder_parameters", "size_mb")},
        "latency_ms": latency_in(run, setting, "student"), "setting": setting and str(setting),
        "cut": get_nested(run.get("student.initialisation.pruning"), "cut", run.metric),
    }  # fmt: skip


def _gain(run: RunResults, baseline: RunResults | None) -> dict[str, Any] | None:
    """Return the gain over the baseline; None for the baseline itself, and where it is not finished."""
    if baseline is None or run.folder == baseline.folder:
        return None
    files = [one.folder / name for one in (run, baseline) for name in ("results.json", OUTPUTS)]
    changed = tuple(file.stat().st_mtime_ns if file.is_file() else None for file in files)
    key = (run.folder, baseline.folder, changed)
    if key not in _GAINS:
        _GAINS[key] = gain_over(run, baseline)
    return _GAINS[key]


_GAINS: dict[Any, dict[str, Any] | None] = {}
"""The gains that this process has computed, as the table is written after each run."""


def spent_on(run: RunResults) -> Mapping[str, Any]:
    """Return what a student took with all stages of its training schemes."""
    return run.get("schemes.compute.all_stages") or run.get("training")


def _seconds(run: RunResults) -> float:
    """Return the seconds of a training step."""
    return run.get("training.seconds") / run.get("training.steps")


def _ratio(value: float | None, whole: float | None) -> float | None:
    return value / whole if value and whole else None


def _terms(run: RunResults) -> Mapping[str, Any]:
    """Return the terms of a run's objective."""
    return {name: term for name, term in (run.get("recipe.objective") or {}).items() if term}


def reference_scores(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the scores of teacher and baselines, beside which the methods of a task are read, and whose they are.

    They are those of the method that others are compared with, if it is finished. Another teacher, or a student that
    starts elsewhere, has others.
    """
    row = next((one for one in rows if one["method"] == one["compared_with"]), rows[0])
    whose = f" ({row_label(row)})" if any(one["beside"] != row["beside"] for one in rows) else ""
    labels = {key: label for label, key in _KEYS.items()}
    return ", ".join(f"{labels.get(key, key)} {decimal(score)}" for key, score in row["beside"].items()) + whose


def row_label(row: Mapping[str, Any]) -> str:
    """Return the name of a row's method, and of its point where there is one."""
    point = row.get("point") or {}
    names = short_names(list(point))
    return ", ".join([row["method"], *(f"{names[name]} {value}" for name, value in point.items())])


def rows_of_arm(rows: Sequence[Mapping[str, Any]], arm: str) -> list[Mapping[str, Any]]:
    """Return the rows of a method; one of equal steps has all training rows in common with the method itself."""
    plain = arm.removesuffix(EQUAL_STEPS)
    own = [row for row in rows if row["method"] == arm]
    if plain == arm:
        return own
    whole = [row for row in rows if row["method"] == plain and any(row["point"].get(key) == 1 for key in SHARE_KEYS)]
    return [*own, *whole]


def study_heading(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the scores of a task are, after how many steps, and the scores beside which they are read."""
    return f"{rows[0]['metric']} after {shown_steps(rows)} steps: {reference_scores(rows)}"


def shown_steps(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the optimiser steps of all rows, or the least and the most."""
    steps = sorted({row["steps"] for row in rows})
    return f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"


def study_tables(rows: Sequence[Mapping[str, Any]]) -> list[list[list[str]]]:
    """Return the tables of a task's methods: scores, students where they differ in size, and costs."""
    tables = [method_table(rows), method_students(rows), method_costs(rows)]
    return [table for table in tables if table]


def method_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a table of the methods' scores with a line for each, its head first; with accuracy beside other scores."""
    return _table(rows, _QUALITY, _quality)


def method_costs(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a table of what the methods took, with a line for each, its head first."""
    return _table(rows, _COST, _cost)


def method_students(rows: Sequence[Mapping[str, Any]]) -> list[list[str]] | None:
    """Return a table of the methods' students, its head first; None where all are of one size."""
    if len({tuple(row["student"].get(key) for key in ("layers", "parameters", "size_mb")) for row in rows}) == 1:
        return None
    return _table(rows, _STUDENT, _size)


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], cells: Callable[[Mapping[str, Any]], list[str]]
) -> list[list[str]]:
    """Return columns that have something in them, after the names of the methods."""
    baseline = rows[0]["compared_with"]
    head = [name.replace("plain", baseline) if name != "gain" else f"− {baseline}, points" for name in columns]
    lines = [cells(row) for row in rows]
    kept = [number for number in range(len(head)) if any(line[number] for line in lines)]
    names = [row_label(row) for row in rows]
    return [
        [name, *(line[number] for number in kept)]
        for name, line in zip(["method", *names], [head, *lines], strict=True)
    ]


def p_value(value: float | None) -> str:
    """Format a p-value: 0.03, or < 0.001."""
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _quality(row: Mapping[str, Any]) -> list[str]:
    gain = row["gain"]
    return [
        decimal(row["median"]),
        " ".join(map(decimal, row["values"])),
        decimal(row["accuracy"]),
        format_gain(gain),
        f"{gain['won']} of {gain['seeds']}" if gain else "",
        p_value(gain and gain.get("p_holm")),
        percent(row["median"] / row["teacher"]) if (row["teacher"] or 0) > 0 else "",
        percent(row["agreement"]),
    ]


def _cost(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['seconds_per_step']:.3g}",
        f"{row['times_plain']:.2f}" if row["times_plain"] else "",
        f"{row['peak_mib']:,}" if row["peak_mib"] else "",
        duration(row["seconds"]),
        large(row["tokens_forward"]),
        large(row["tokens_backward"]),
        large(row["flops"], "FLOP"),
        f"{row['flops_ratio']:.2f}" if row["flops_ratio"] else "",
    ]


def _size(row: Mapping[str, Any]) -> list[str]:
    student = row["student"]
    return [
        str(student["layers"] or ""),
        large(student["parameters"]),
        large(student["encoder_parameters"]),
        f"{student['size_mb']:.1f}" if student["size_mb"] else "",
        milliseconds(student["latency_ms"]),
        decimal(student["cut"]),
        decimal(row["beside"].get(_KEYS["initialised student"])),
    ]
