"""Who was scored, by one name each, and what came out: teacher, student and baselines with the values of every seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distil_nlp.results import RunResults, get_nested

MAJORITY, LABELS_ONLY = "majority", "baselines.no_distillation"

_METRICS = {
    "f1": "F1",
    "f1_macro": "macro F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearmanr": "Spearman correlation",
    "mse": "mean squared error",
    "loss": "loss (nats)",
}
_BASELINES = {
    "no_distillation": "labels alone",
    "random_init": "from random weights",
    "copied_only": "untrained copy",
}
_FLOORS = {"mlm": "token frequencies", "regression": "the mean for all", "classification": "one class for all"}


@dataclass(frozen=True)
class SeedScores:
    """One metric: the median of the seeds, and the value of each."""

    median: float
    values: tuple[float, ...]

    @property
    def span(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class ScoredModel:
    """One of those that were scored. `role`: teacher, student, or a baseline's key."""

    role: str
    label: str
    metrics: dict[str, float | None]
    seeds: dict[str, Any]
    gain: dict[str, Any] | None = None

    def score(self, metric: str) -> SeedScores | None:
        """The metric over all seeds; None where it was not taken, or was not a number."""
        values = [value for value in get_nested(self.seeds, metric, "values") or () if value is not None]
        median = get_nested(self.seeds, metric, "median") if values else self.metrics.get(metric)
        return None if median is None else SeedScores(median, tuple(values or [median]))


def scored_models(run: RunResults) -> list[ScoredModel]:
    """Teacher, student, and the baselines there are, the floor last."""
    found = run.get("baselines") or {}
    parts = {
        "teacher": run.get("teacher") or {},
        "student": (run.get("student") or {}) | {"seeds": run.get("seeds")},
    } | found
    order = ["teacher", "student", *_BASELINES, *sorted(found, key=MAJORITY.__eq__)]
    labels = _BASELINES | {MAJORITY: majority_name(run)}
    return [
        ScoredModel(role, labels.get(role, role), part.get("metrics") or {}, part.get("seeds") or {}, part.get("gain"))
        for role in dict.fromkeys(order)
        if isinstance(part := parts.get(role), dict)
    ]


def majority_name(run: RunResults) -> str:
    """What one gets without a model."""
    return _FLOORS[run.kind]


def headline_score(run: RunResults, role: str) -> SeedScores | None:
    """The headline metric of teacher, student or a baseline."""
    return next((row.score(run.metric) for row in scored_models(run) if row.role == role), None)


def retention_of(run: RunResults, row: ScoredModel) -> float | None:
    """Its share of the teacher's headline metric; None for the teacher itself."""
    if row.role == "student":
        return run.get("retention")
    score, teacher = row.score(run.metric), headline_score(run, "teacher")
    if row.role == "teacher" or score is None or teacher is None or teacher.median <= 0:
        return None
    return score.median / teacher.median


def is_within_noise(gain: dict[str, Any] | None) -> bool | None:
    """Whether a gain's interval includes 0; None without an interval."""
    low, high = get_nested(gain, "low"), get_nested(gain, "high")
    return None if low is None or high is None else low <= 0 <= high


def metric_name(metric: str, kind: str) -> str:
    """A metric in words; `<split>/accuracy` becomes accuracy (split)."""
    split, _, name = metric.rpartition("/")
    words = "top-1 accuracy" if kind == "mlm" and name == "accuracy" else _METRICS.get(name, name)
    return f"{words} ({split})" if split else words


def headline_name(run: RunResults) -> str:
    """The headline metric in words."""
    return metric_name(run.metric, run.kind)


def other_metrics(run: RunResults) -> list[str]:
    """The metrics beside the headline, without a first split's second copy of the plain names."""
    rows = scored_models(run)
    names = dict.fromkeys(name for row in rows for name in row.metrics if name != run.metric)
    return [name for name in names if not _is_copy(name, rows)]


def _is_copy(name: str, rows: list[ScoredModel]) -> bool:
    plain = name.rpartition("/")[2]
    return plain != name and all(row.metrics.get(name) == row.metrics.get(plain) for row in rows)
