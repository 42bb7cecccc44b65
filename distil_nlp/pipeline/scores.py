"""Scores of a run as `results.json` has them: of each seed, of baselines, and gains over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distil_nlp.evaluation.bootstrap import paired_difference, paired_gain, score_interval
from distil_nlp.evaluation.kinds import MetricOfSums, RowFeatures, task_evaluator
from distil_nlp.evaluation.metrics import Metrics, metrics_of, retention, retention_above_majority
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.plan import COPIED_ONLY, DISTILLED, NO_DISTILLATION
from distil_nlp.pipeline.students import TrainedStudent
from distil_nlp.results import summarize_seeds


@dataclass
class RunScores:
    """Outputs and metrics of all models of a run.

    Attributes:
        task: name of the task.
        majority: metrics of the majority-class baseline.
        teacher: seed → outputs; one seed, unless each seed has its own teacher. {} for answers in the data's columns
            that some evaluation rows have not.
        members: seed → outputs of each teacher of an ensemble; of a single teacher, its own.
        copied: outputs of the initialised student, before training.
        students: name in the plan → seed → trained student; the first seed of `distilled` is the run's own student.
        train_loss: both models' loss on training rows; None where it was not measured.
    """

    task: str
    majority: Metrics
    teacher: dict[int, dict[str, Outputs]] = field(default_factory=dict)
    members: dict[int, list[dict[str, Outputs]]] = field(default_factory=dict)
    copied: dict[str, Outputs] = field(default_factory=dict)
    students: dict[str, dict[int, TrainedStudent]] = field(default_factory=dict)
    train_loss: dict[str, float] | None = None

    def teacher_scores(self) -> dict[str, Any]:
        """Return the metrics of the first teacher, and of every seed where there are several; {} without scores."""
        if not self.teacher:
            return {}
        by_seed = {seed: metrics_of(self.task, outputs) for seed, outputs in self.teacher.items()}
        return _scores(by_seed) if len(by_seed) > 1 else {"metrics": next(iter(by_seed.values()))}

    def student_scores(self) -> dict[str, Any]:
        """Return the metrics of the run's own student, and of every seed."""
        return _scores({seed: trained.metrics for seed, trained in self.students[DISTILLED].items()})

    def exit_scores(self, blocks: int) -> dict[str, Any]:
        """Return the metrics of the student's exit after so many blocks, and of every seed."""
        students = self.students[DISTILLED].items()
        return _scores({seed: metrics_of(self.task, trained.exits[blocks]) for seed, trained in students})

    def baselines(self) -> dict[str, Any]:
        """Return the scores of all baselines, and the gain of distillation over each."""
        copied = {"metrics": metrics_of(self.task, self.copied), "gain": self._gain([self.copied])}
        baselines = {"majority": {"metrics": self.majority}, COPIED_ONLY: copied}
        for name, students in self.students.items():
            if name != DISTILLED:
                scores = _scores({seed: trained.metrics for seed, trained in students.items()})
                baselines[name] = scores | {"gain": self._gain([trained.outputs for trained in students.values()])}
        return baselines

    def retention(self, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, float | None]:
        """Return the retention of the median student against the median teacher.

        Args:
            student: from `student_scores`.
            teacher: from `teacher_scores`.
        """
        student, teacher = _medians(student), _medians(teacher)
        return {
            "retention": retention(student, teacher, self.task),
            "retention_above_majority": retention_above_majority(student, teacher, self.majority, self.task),
        }

    def intervals(self) -> dict[str, Any]:
        """Return the interval of the headline metric of teacher, student and each baseline that is a model."""
        return {role: score_interval(self.task, outputs) for role, outputs in self._by_role().items()}

    def calibration(self) -> dict[str, Any]:
        """Return the block `calibration` of `results.json`; {} without classes, or without a label.

        It has the means over seeds of each model's measures on the first evaluation split, and intervals of the
        student's differences to the teacher and to labels only.
        """
        models, measures = self._by_role(), task_evaluator(self.task).calibration()
        student = models["student"]
        if not any((features(student[0])[:, -1] > 0).any() for features, _ in measures.values()):
            return {}
        found: dict[str, Any] = {}
        for role, outputs in models.items():
            found[role] = {name: _mean_of(measure, outputs) for name, measure in measures.items()}
            if role in ("teacher", NO_DISTILLATION):
                differences = {name: paired_difference(one, student, outputs) for name, one in measures.items()}
                found[role]["difference"] = {
                    name: dict(zip(("mean", "low", "high"), values, strict=True))
                    for name, values in differences.items()
                }
        return {"calibration": found}

    def thresholds(self, selection: Any) -> dict[str, Any]:
        """Return the block `thresholds` of `results.json`; {} for a task whose predictions need none.

        Args:
            selection: the rows that chose them; None without any.
        """
        evaluator = task_evaluator(self.task)
        if not evaluator.has_threshold(self.task):
            return {}
        models = {role: outputs[0].threshold for role, outputs in self._by_role().items()}
        return {"thresholds": {"rows": None if selection is None else evaluator.number_of(selection), "models": models}}

    def _by_role(self) -> dict[str, list[Outputs]]:
        """Return the outputs on the first evaluation split of each model, for each of its seeds."""
        split = next(iter(self.copied))
        models = {"teacher": [*self.teacher.values()], COPIED_ONLY: [self.copied]}
        for name, students in self.students.items():
            models["student" if name == DISTILLED else name] = [trained.outputs for trained in students.values()]
        return {role: [one[split] for one in outputs] for role, outputs in models.items() if outputs}

    def first_outputs(self) -> tuple[dict[str, Outputs] | None, dict[str, Outputs]]:
        """Return the outputs of the first teacher, if it was scored, and of the run's own student, by split."""
        own = next(iter(self.students[DISTILLED].values()))
        return next(iter(self.teacher.values()), None), own.outputs

    def _gain(self, baseline: Sequence[Mapping[str, Outputs]]) -> dict[str, Any]:
        """Return the gain of distillation over a baseline on the first evaluation split."""
        split = next(iter(self.copied))
        students = [trained.outputs[split] for trained in self.students[DISTILLED].values()]
        return paired_gain(self.task, students, [outputs[split] for outputs in baseline]).to_dict()


def _mean_of(measure: tuple[RowFeatures, MetricOfSums], outputs: Sequence[Outputs]) -> float:
    """Return the mean over seeds of a measure."""
    features, value = measure
    return float(np.mean([value(features(one).sum(0, keepdims=True)) for one in outputs]))


def _scores(by_seed: Mapping[int, Metrics]) -> dict[str, Any]:
    """Return the first seed's metrics, and for each metric the values of all seeds."""
    seeds, first = list(by_seed), next(iter(by_seed.values()))
    values = {name: [metrics[name] for metrics in by_seed.values()] for name in first}
    return {"metrics": first, "seeds": {name: summarize_seeds(seeds, numbers) for name, numbers in values.items()}}


def _medians(scores: Mapping[str, Any]) -> Metrics:
    """Return the median of each metric over seeds."""
    if "seeds" not in scores:
        return scores.get("metrics", {})
    return {name: summary["median"] for name, summary in scores["seeds"].items()}
