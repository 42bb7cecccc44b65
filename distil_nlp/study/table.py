"""The table of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import decimal
from distil_nlp.reporting.scores import headline_name, headline_score, scored_models
from distil_nlp.results import RunResults, read_runs
from distil_nlp.study.plan import BASELINE_METHOD, StudyPlan

_MEMORY = "peak_mib.txt"


def _rows(plan: StudyPlan, folder: Path) -> Iterator[dict[str, Any]]:
    for task in plan.tasks:
        done = {
            name: folder / task / name for name in plan.methods if (folder / task / name / "results.json").is_file()
        }
        runs = dict(zip(done, read_runs(list(done.values())), strict=True)) if done else {}
        base = _seconds(runs[BASELINE_METHOD]) if BASELINE_METHOD in runs else None
        for name, run in runs.items():
            score, seconds, memory = headline_score(run, "student"), _seconds(run), done[name] / _MEMORY
            beside = {one.label: one.score(run.metric) for one in scored_models(run) if one.role != "student"}
            yield {
                "task": task, "method": name, "metric": headline_name(run), "terms": sorted(_terms(run)),
                "median": score.median, "low": score.span[0], "high": score.span[1], "seeds": len(score.values),
                "teacher": headline_score(run, "teacher").median,
                "beside": {label: score.median for label, score in beside.items() if score is not None},
                "agreement": run.get("fidelity.agreement"),
                "steps": run.get("training.steps"), "seconds_per_step": seconds,
                "times_plain": seconds / base if base else None,
                "peak_mib": int(memory.read_text()) if memory.is_file() else None,
            }  # fmt: skip


def _seconds(run: RunResults) -> float:
    return run.get("training.seconds") / run.get("training.steps")


def _terms(run: RunResults) -> Mapping[str, Any]:
    return {name: term for name, term in (run.get("recipe.objective") or {}).items() if term}


def _beside(row: Mapping[str, Any]) -> str:
    """What the students' scores are to be seen beside: the teacher's, and what one gets for nothing."""
    return ", ".join(f"{label} {decimal(score)}" for label, score in row["beside"].items())


def _table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    head = ["method", "median", "range", "of the teacher's", "same answers", "s a step", "times plain", "peak, MiB"]
    return [head, *map(_cells, rows)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["method"],
        decimal(row["median"]),
        f"{decimal(row['low'])} to {decimal(row['high'])}",
        f"{row['median'] / row['teacher']:.1%}" if row["teacher"] > 0 else "",
        f"{row['agreement']:.1%}" if row["agreement"] is not None else "",
        f"{row['seconds_per_step']:.3g}",
        f"{row['times_plain']:.2f}" if row["times_plain"] else "",
        f"{row['peak_mib']:,}" if row["peak_mib"] else "",
    ]
