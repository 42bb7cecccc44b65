"""Who was scored, and what came out: teacher, student and baselines with the values of every seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distil_nlp.report.read import Run, pick
from distil_nlp.report.units import ratio

MAJORITY, NO_DISTILLATION = "majority", "no_distillation"

_METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_macro": "macro F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearmanr": "Spearman correlation",
    "mse": "mean squared error",
    "loss": "loss (nats)",
}
_FLOORS = {"mlm": "Token frequencies alone", "regression": "The mean for all", "classification": "One class for all"}
_BASELINES = {
    NO_DISTILLATION: "Student, labels alone",
    "random_init": "Student, from random weights",
    "copied_only": "Student, untrained copy",
}


@dataclass(frozen=True)
class Score:
    """One metric: the median of the seeds, and the value of each."""

    median: float
    values: tuple[float, ...]

    @property
    def span(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class Scored:
    """A row of the quality table. `role`: teacher, student, or a baseline's key."""

    role: str
    label: str
    metrics: dict[str, float | None]
    seeds: dict[str, Any]
    gain: dict[str, Any] | None = None

    def score(self, metric: str) -> Score | None:
        """The metric over all seeds; None where it was not taken, or was not a number."""
        values = [value for value in pick(self.seeds, metric, "values") or () if value is not None]
        median = pick(self.seeds, metric, "median") if values else self.metrics.get(metric)
        return None if median is None else Score(median, tuple(values or [median]))


def scored(run: Run) -> list[Scored]:
    """Teacher, student, and the baselines there are, the floor last."""
    rows = [
        Scored("teacher", "Teacher", run.get("teacher", "metrics") or {}, run.get("teacher", "seeds") or {}),
        Scored("student", "Student, distilled", run.get("student", "metrics") or {}, run.get("seeds") or {}),
    ]
    found = run.get("baselines") or {}
    known = [*_BASELINES, *(name for name in found if name not in _BASELINES and name != MAJORITY), MAJORITY]
    for name in known:
        part = found.get(name)
        if isinstance(part, dict):
            label = _FLOORS[run.kind] if name == MAJORITY else _BASELINES.get(name, name)
            rows.append(Scored(name, label, part.get("metrics") or {}, part.get("seeds") or {}, part.get("gain")))
    return rows


def by_role(run: Run) -> dict[str, Scored]:
    """`scored`, to look one up."""
    return {row.role: row for row in scored(run)}


def headline_score(run: Run, role: str) -> Score | None:
    """The headline metric of teacher, student or a baseline."""
    row = by_role(run).get(role)
    return row.score(run.metric) if row else None


def retention(run: Run) -> float | None:
    """Student ÷ teacher on the headline metric, as `results.json` has it."""
    return run.get("retention")


def retention_of(run: Run, row: Scored) -> float | None:
    """Its share of the teacher's headline metric; None for the teacher itself."""
    if row.role == "student":
        return retention(run)
    score, teacher = row.score(run.metric), headline_score(run, "teacher")
    if row.role == "teacher" or score is None or teacher is None or teacher.median <= 0:
        return None
    return ratio(score.median, teacher.median)


def metric_name(metric: str, kind: str) -> str:
    """A metric in words; `<split>/accuracy` becomes accuracy (split)."""
    split, _, name = metric.rpartition("/")
    words = "top-1 accuracy" if kind == "mlm" and name == "accuracy" else _METRICS.get(name, name)
    return f"{words} ({split})" if split else words


def other_metrics(run: Run) -> list[str]:
    """The metrics beside the headline, without a first split's second copy of the plain names."""
    rows = scored(run)
    names = dict.fromkeys(name for row in rows for name in row.metrics if name != run.metric)
    return [name for name in names if not _is_copy(name, rows)]


def _is_copy(name: str, rows: list[Scored]) -> bool:
    plain = name.rpartition("/")[2]
    return plain != name and all(row.metrics.get(name) == row.metrics.get(plain) for row in rows)
