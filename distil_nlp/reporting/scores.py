"""Scores of teacher, student and baselines with the values of every seed, and the names they are shown under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distil_nlp.reporting.formatting import decimal
from distil_nlp.results import RunResults, get_nested
from distil_nlp.tasks import TaskKind

MAJORITY, LABELS_ONLY, UNTRAINED = "majority", "baselines.no_distillation", "baselines.copied_only"

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
    "no_distillation": "labels only",
    "plain": "plain distillation",
    "equal_compute": "plain, equal compute",
    "random_init": "from random weights",
    "copied_only": "initialised student",
}


def has_taught_itself(run: RunResults) -> bool:
    """Return whether the student taught itself, so that the model in the teacher's place is one to compare with."""
    return run.get("recipe.teacher.self") is not None


def learned_from_answers(run: RunResults) -> bool:
    """Return whether answers in the data's columns taught the student, and no model did."""
    return run.get("recipe.teacher.columns") is not None


def teacher_below_labels_only(run: RunResults) -> str | None:
    """Return the scores of a teacher, and of the student on labels only where all its seeds are better; else None."""
    teacher, labels = headline_score(run, "teacher"), headline_score(run, "no_distillation")
    if has_taught_itself(run) or predicts_other_words(run) or teacher is None or labels is None:
        return None
    if labels.span[0] <= teacher.median:
        return None
    return f"{headline_name(run)} {decimal(teacher.median)}, where labels only reach {decimal(labels.median)}"


def answers_word(run: RunResults) -> str:
    """Return the answers that taught in words, with who made them if the recipe says so."""
    return answers_in_words(run.get("recipe.teacher.columns.source"))


def answers_in_words(source: str | None) -> str:
    """Return the words for answers that a source made, where it is known."""
    return f"answers by {source} in the data’s columns" if source else "answers in the data’s columns"


def teacher_word(run: RunResults) -> str:
    """Return the word for the model that student and baselines are compared with: teacher, or reference."""
    return "reference" if has_taught_itself(run) else "teacher"


def its_teacher(run: RunResults) -> str:
    """Return the student's teacher in words; the reference, which taught nothing, where it taught itself."""
    return "the reference, which did not teach it" if has_taught_itself(run) else "its teacher"


@dataclass(frozen=True)
class SeedScores:
    """One metric over the seeds: its median and the value of each seed."""

    median: float
    values: tuple[float, ...]

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class ScoredModel:
    """Scores of the teacher, the student or a baseline.

    Attributes:
        role: `teacher`, `student`, or a baseline's key in `results.json`.
        label: the name it is shown under.
        metrics: metric → score of the first seed.
        seeds: metric → summary over seeds; empty for a single seed.
        gain: gain of the distilled student over this baseline.
    """

    role: str
    label: str
    metrics: dict[str, float | None]
    seeds: dict[str, Any]
    gain: dict[str, Any] | None = None

    def score(self, metric: str) -> SeedScores | None:
        """Return a metric over all seeds; None if it was not measured, or the only one is not a number.

        Of several seeds, a correlation that is not a number counts as 0, as it does in their median.
        """
        values = [0.0 if value is None else value for value in get_nested(self.seeds, metric, "values") or ()]
        median = get_nested(self.seeds, metric, "median") if values else self.metrics.get(metric)
        return None if median is None else SeedScores(median, tuple(values or [median]))


def scored_models(run: RunResults) -> list[ScoredModel]:
    """Return teacher, student and the baselines of a run, the majority-class baseline last."""
    baselines = run.get("baselines") or {}
    parts = {
        "teacher": run.get("teacher") or {},
        "student": (run.get("student") or {}) | {"seeds": run.get("seeds")},
    } | baselines
    order = ["teacher", "student", *_BASELINES, *sorted(baselines, key=MAJORITY.__eq__)]
    labels = _BASELINES | {MAJORITY: majority_name(run), "teacher": teacher_word(run)}
    return [
        ScoredModel(role, labels.get(role, role), part.get("metrics") or {}, part.get("seeds") or {}, part.get("gain"))
        for role in dict.fromkeys(order)
        if isinstance(part := parts.get(role), dict)
        and not (role == MAJORITY and part.get("metrics") == {})
        and not _is_unscored(run, role, part)
    ]


def _is_unscored(run: RunResults, role: str, part: dict[str, Any]) -> bool:
    """Return whether a line is of answers that the evaluation rows have not."""
    return role == "teacher" and learned_from_answers(run) and not part.get("metrics")


def majority_name(run: RunResults) -> str:
    """Return the name of the majority-class baseline, or of what stands for it in this kind of task."""
    return run.kind.majority_name


def headline_score(run: RunResults, role: str) -> SeedScores | None:
    """Return the headline metric of the teacher, the student or a baseline."""
    return next((row.score(run.metric) for row in scored_models(run) if row.role == role), None)


def predicts_other_words(run: RunResults) -> bool:
    """Return True if teacher and student predict words of unlike vocabularies, whose scores do not compare."""
    return run.kind.predicts_words and run.get("tokenizers") is not None


def retention_of(run: RunResults, row: ScoredModel) -> float | None:
    """Return the fraction of the teacher's headline metric that a model retains; None for the teacher itself."""
    if predicts_other_words(run):
        return None
    if row.role == "student":
        return run.get("retention")
    score, teacher = row.score(run.metric), headline_score(run, "teacher")
    if row.role == "teacher" or score is None or teacher is None or teacher.median <= 0:
        return None
    return score.median / teacher.median


def is_within_noise(gain: dict[str, Any] | None) -> bool | None:
    """Return True if a gain's interval includes 0; None without an interval."""
    low, high = get_nested(gain, "low"), get_nested(gain, "high")
    return None if low is None or high is None else low <= 0 <= high


def metric_name(metric: str, kind: TaskKind) -> str:
    """Return a metric's name in words; `<split>/accuracy` becomes accuracy (split)."""
    split, _, key = metric.rpartition("/")
    name = dict(kind.metric_names).get(key) or _METRICS.get(key, key)
    return f"{name} ({split})" if split else name


def headline_name(run: RunResults) -> str:
    """Return the headline metric's name in words."""
    return metric_name(run.metric, run.kind)


def other_metrics(run: RunResults) -> list[str]:
    """Return the names of further metrics, without `<split>/<metric>` where it repeats a plain name."""
    rows = scored_models(run)
    names = dict.fromkeys(name for row in rows for name in row.metrics if name != run.metric)
    return [name for name in names if not _is_copy(name, rows)]


def _is_copy(name: str, rows: list[ScoredModel]) -> bool:
    """Return True if `<split>/<metric>` equals the plain metric in all rows."""
    plain = name.rpartition("/")[2]
    return plain != name and all(row.metrics.get(name) == row.metrics.get(plain) for row in rows)
