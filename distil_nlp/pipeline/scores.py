"""All that a run found out, and how it is told in `results.json`: scores of each seed, gains over baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distil_nlp.evaluation.bootstrap import paired_gain
from distil_nlp.evaluation.metrics import Metrics, metrics_of, retention, retention_above_majority
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.plan import COPIED_ONLY, DISTILLED
from distil_nlp.pipeline.students import TrainedStudent
from distil_nlp.results import summarize_seeds


@dataclass
class RunScores:
    """What is known once everything ran.

    Attributes:
        floor: the metrics of no model at all.
        teacher: seed → outputs; one seed, unless there was a teacher for each.
        copied: outputs of the student before any training.
        students: variant's name → seed → what became of it; the first seed of `distilled` is the run's own student.
    """

    task: str
    floor: Metrics
    teacher: dict[int, dict[str, Outputs]] = field(default_factory=dict)
    copied: dict[str, Outputs] = field(default_factory=dict)
    students: dict[str, dict[int, TrainedStudent]] = field(default_factory=dict)

    def teacher_scores(self) -> dict[str, Any]:
        """The metrics of the first teacher, and of all where there are several."""
        scores = {seed: metrics_of(self.task, outputs) for seed, outputs in self.teacher.items()}
        return _scores(scores) if len(scores) > 1 else {"metrics": next(iter(scores.values()))}

    def student_scores(self) -> dict[str, Any]:
        return _scores({seed: trained.metrics for seed, trained in self.students[DISTILLED].items()})

    def baselines(self) -> dict[str, Any]:
        """Floor, copy and trained baselines with their scores and what distillation gains over them."""
        copied = {"metrics": metrics_of(self.task, self.copied), "gain": self._gain([self.copied])}
        found = {"majority": {"metrics": self.floor}, COPIED_ONLY: copied}
        for name, students in self.students.items():
            if name != DISTILLED:
                scores = _scores({seed: trained.metrics for seed, trained in students.items()})
                found[name] = scores | {"gain": self._gain([trained.outputs for trained in students.values()])}
        return found

    def retention(self, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, float | None]:
        """Of the median student, against the (median) teacher; the arguments are their scores."""
        student, teacher = _typical(student), _typical(teacher)
        return {
            "retention": retention(student, teacher, self.task),
            "retention_above_majority": retention_above_majority(student, teacher, self.floor, self.task),
        }

    def _gain(self, theirs: Sequence[Mapping[str, Outputs]]) -> dict[str, Any]:
        """On the first evaluation split."""
        ours = [trained.outputs for trained in self.students[DISTILLED].values()]
        first = next(iter(self.copied))
        return paired_gain(self.task, [one[first] for one in ours], [one[first] for one in theirs]).to_dict()


def _scores(by_seed: Mapping[int, Metrics]) -> dict[str, Any]:
    """The first seed's metrics, and of each metric every seed's value."""
    seeds, first = list(by_seed), next(iter(by_seed.values()))
    values = {name: [metrics[name] for metrics in by_seed.values()] for name in first}
    told = {name: summarize_seeds(seeds, found) for name, found in values.items()}
    return {"metrics": first, "seeds": told}


def _typical(scores: Mapping[str, Any]) -> Metrics:
    """The median of each metric over seeds."""
    if "seeds" not in scores:
        return scores["metrics"]
    return {name: told["median"] for name, told in scores["seeds"].items()}
