"""The estimate of a run: its stages, by a few micro-batches that are timed here or by an accelerator's figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.evaluation.fidelity import CKA_ROWS
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.latency import PLANS, LatencyPlan
from distil_nlp.pipeline.links import Link
from distil_nlp.pipeline.plan import DISTILLED, EQUAL_COMPUTE, PLAIN
from distil_nlp.pipeline.planning.advice import advice_of
from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.cutting import cutting_stages
from distil_nlp.pipeline.planning.forward_probe import ForwardRate, probe_forward, probe_teachers, row_tokens
from distil_nlp.pipeline.planning.memory import TrainingMemory
from distil_nlp.pipeline.planning.prepared import PreparedRun
from distil_nlp.pipeline.planning.stage import DiskUse, PlannedStage, RunCosts
from distil_nlp.pipeline.planning.step_probe import ProbedSteps, probe_steps
from distil_nlp.pipeline.planning.trainings import SAME_STEPS, PlannedTraining, planned_finetunings, planned_students
from distil_nlp.pipeline.run_folder import run_state
from distil_nlp.utils.environment import peak_memory_mib

REPORT_SECONDS = 5.0
"""Of intervals, plots, report and card, once a run: measured on 2 CPU cores (docs/planning.md), not on this machine."""


def estimate_run(prepared: PreparedRun, basis: Basis, start_seconds: float, known: set[Path] | None = None) -> RunCosts:
    """Return what a run will take, with all that comes first; its untrained models are changed by the steps.

    Args:
        prepared: rows and models.
        basis: the machine.
        start_seconds: that loading them took.
        known: folders of teachers and links that are counted elsewhere already, such as by another cell of a study;
            those of this run are added.
    """
    estimate = _Estimate(prepared, basis, set() if known is None else known)
    stages = [PlannedStage("loading rows and models", "start", start_seconds), *estimate.stages()]
    memory, largest = estimate.memory or (None, "")
    peak = round(peak_memory_mib(prepared.plan.args.device) * 2**20)
    costs = RunCosts(stages, memory, largest, estimate.disk(), peak)
    return replace(costs, advice=advice_of(costs, prepared.plan.recipe, basis))


@dataclass
class _Estimate:
    """The estimate of one run and of the links before it.

    Attributes:
        prepared: rows and models.
        basis: the machine.
        known: folders of teachers and links that are counted already.
        title: of the link that it is; None for the recipe's own run.
        memory: parts and name of the training that takes most; None before the first.
    """

    prepared: PreparedRun
    basis: Basis
    known: set[Path]
    title: str | None = None
    memory: tuple[TrainingMemory, str] | None = None
    links: list[_Estimate] = field(default_factory=list)
    flops: dict[str, float | None] = field(default_factory=dict)
    probed: list[tuple[PlannedTraining, ProbedSteps]] = field(default_factory=list)

    def stages(self) -> Iterator[PlannedStage]:
        """Yield all stages, in the order in which they are done."""
        if self.title is None:  # the teacher of links is the run's own
            yield from map(self._training, planned_finetunings(self.prepared, self.basis.processes, self.known))
            for link, prepared in self.prepared.links:
                yield from self._link(link, prepared)
        yield self._scoring("scoring the teacher", self._teacher, self._number_of_teachers, 0)
        students = list(planned_students(self.prepared, self.basis.processes))
        caches = [one for one in students if one.has_cache]
        trained = {one.student: self._training(one) for one in students}
        yield from self._cutting(trained[DISTILLED])
        if caches:
            yield self._cache(caches[0])
        yield from trained.values()
        yield self._scoring(
            "scoring students", self._student, self._number_of_scored(students), row_tokens(self._choice)
        )
        yield from self._measuring()
        yield PlannedStage("report and card", "report", REPORT_SECONDS, run=self.title)

    # Trainings -----------------------------------------------------------------------------------------------

    def _training(self, training: PlannedTraining) -> PlannedStage:
        """Return the stage of a training, whose steps are probed unless they cost what those of another do."""
        probed = self._probe(training)
        steps, batches = training.batches.steps, training.batches
        flops = None if probed.flops is None else probed.flops.total(batches.widths)
        factor = 1.0
        if training.student == EQUAL_COMPUTE:
            factor = self._steps_of_equal_compute(steps) / steps
        micro = None if probed.seconds is None else probed.seconds.total(batches.widths)
        working = self.basis.seconds(micro, flops) + (probed.optimizer_seconds * steps if self.basis.is_timed else 0)
        parts = {
            "steps": working * factor,
            "evaluations": self._evaluations(training),
            "checkpoints": training.checkpoints * (probed.checkpoint[0] if probed.checkpoint else 0.0),
            "start": probed.start_seconds,
        }
        parts["teacher"] = working * factor * self._teacher_share(training, probed, flops)
        if training.student is not None:
            self.flops[training.student] = flops
        left = training.times - training.done
        seconds = sum(value for name, value in parts.items() if name != "teacher")
        return PlannedStage(
            training.name,
            training.kind,
            seconds * left,
            training.times,
            round(steps * factor),
            round(batches.tokens * factor) * training.times,
            None if flops is None else flops * factor * training.times,
            is_done=not left,
            parts={name: value * left for name, value in parts.items() if value},
            terms={name: share * working * factor * left for name, share in probed.term_shares.items()},
            run=self.title,
        )

    def _probe(self, training: PlannedTraining) -> ProbedSteps:
        alike = SAME_STEPS.get(training.student or "")
        for other, found in self.probed:
            if other.student is not None and other.student == alike:
                self.probed.append((training, found))
                return found
        found = probe_steps(training.build, training.args, training.batches, training.rows, self.basis.is_timed)
        if found.flops is None and not self.basis.is_timed:
            raise UserError(
                "--accelerator",
                "operations that can be counted",
                f"{training.name} with gradients at the inputs, FSDP or DeepSpeed",
                why="its time follows from them",
                fix="leave --accelerator out, and run this on the machine itself",
            )
        self.probed.append((training, found))
        if self.memory is None or found.memory.total > self.memory[0].total:
            self.memory = found.memory, training.name
        return found

    def _steps_of_equal_compute(self, steps: int) -> float:
        """Return the steps of a plain student that take the operations of the run's own student and all links."""
        links = [link.flops.get(DISTILLED) for link in self.links]
        spent, plain = [self.flops[DISTILLED], *links], self.flops[PLAIN]
        return steps if None in spent or not plain else max(round(steps * sum(filter(None, spent)) / plain), 1)

    def _evaluations(self, training: PlannedTraining) -> float:
        """Return the seconds of all evaluations in a training."""
        if not training.evaluations or training.selection is None:
            return 0.0
        rate = self._teacher if training.student is None else self._student
        rate = rate + self._teacher if training.is_taught else rate
        return training.evaluations * self._seconds(rate, row_tokens(training.selection))

    def _teacher_share(self, training: PlannedTraining, probed: ProbedSteps, flops: float | None) -> float:
        """Return the share of the teacher's forward in the steps."""
        if not training.is_taught or training.has_cache or not self.prepared.plan.asks_teacher:
            return 0.0
        if self.basis.is_timed:
            return probed.teacher_share
        return min(self._teacher.flops * training.batches.tokens / flops, 1.0) if flops else 0.0

    def _cache(self, training: PlannedTraining) -> PlannedStage:
        """Return the stage in which the teacher's outputs are computed once for all students."""
        epochs = self._cached[1]
        tokens = row_tokens(training.rows) * epochs
        seconds, flops = self._seconds(self._teacher, tokens), self._teacher.flops * tokens
        return PlannedStage("filling the teacher's cache", "cache", seconds, tokens=tokens, flops=flops, run=self.title)

    @property
    def _cached(self) -> tuple[float, int]:
        """Bytes of a row and epochs of the cache; zeros without one."""
        found = [(one.cache_row_bytes, one.cached_epochs) for training, one in self.probed if training.has_cache]
        return max(found, default=(0.0, 0))

    # What comes first ----------------------------------------------------------------------------------------

    def _link(self, link: Link, prepared: PreparedRun) -> Iterator[PlannedStage]:
        """Yield the stages of a link, which another run may have done."""
        own = _Estimate(prepared, self.basis, self.known, link.title)
        self.links.append(own)
        is_done = link.folder in self.known or run_state(link.folder, link.recipe) == "finished"
        self.known.add(link.folder)
        for stage in own.stages():
            yield replace(stage, kind="link", is_done=is_done, seconds=0.0 if is_done else stage.seconds)
        if own.memory and (self.memory is None or own.memory[0].total > self.memory[0].total):
            self.memory = own.memory

    def _cutting(self, trained: PlannedStage) -> Iterator[PlannedStage]:
        """Yield what a student takes that is cut from its teacher, before its first step."""
        left = (trained.steps or 1) * self.prepared.plan.args.gradient_accumulation_steps * trained.times
        rates = (partial(self._seconds, self._teacher), partial(self._seconds, self._student))
        yield from cutting_stages(self.prepared, *rates, trained.parts.get("steps", 0.0) / left, self.title)

    # Forwards ------------------------------------------------------------------------------------------------

    @cached_property
    def _teacher(self) -> ForwardRate:
        """The forward of all teachers; nothing where answers in the data teach."""
        prepared = self.prepared
        if prepared.plan.has_answers:
            return ForwardRate(0.0, 0.0)
        return probe_teachers(prepared.teacher, prepared.data, prepared.plan.args, self.basis.is_timed)

    @cached_property
    def _student(self) -> ForwardRate:
        """The forward of the run's own student."""
        prepared = self.prepared
        return probe_forward(prepared.student, prepared.data, prepared.plan.args, self.basis.is_timed)

    def _seconds(self, rate: ForwardRate, tokens: float) -> float:
        """Return the seconds of a forward over rows of so many tokens."""
        return self.basis.seconds(None if rate.seconds is None else rate.seconds * tokens, rate.flops * tokens)

    @property
    def _number_of_teachers(self) -> int:
        """Number of times that the teachers are scored."""
        plan = self.prepared.plan
        return len({student.seed for student in plan.students}) if plan.recipe.teacher.reseed else 1

    def _number_of_scored(self, students: list[PlannedTraining]) -> int:
        """Return how often a student is scored: as a copy, when it is trained, and what trained with it."""
        return 1 + sum(one.times * (1 + one.heads) for one in students)

    @property
    def _choice(self) -> Any:
        """Rows by which a threshold is chosen; None for tasks without one."""
        data = self.prepared.data
        return data.split.selection if evaluator_of(data.kind).has_threshold(data.task) else None

    def _scoring(self, name: str, rate: ForwardRate, times: int, further: int) -> PlannedStage:
        tokens = sum(map(row_tokens, self.prepared.data.split.evaluation.values())) + further
        seconds = self._seconds(rate, tokens * times)
        return PlannedStage(name, "scoring", seconds, times, run=self.title)

    def _measuring(self) -> Iterator[PlannedStage]:
        """Yield the probe while it trains, the costs of the models, and the comparison of their layers."""
        prepared = self.prepared
        section, probe = prepared.plan.recipe.evaluation.probe, prepared.probe
        if section is not None and probe is not None:
            tokens = row_tokens(probe.train) + row_tokens(probe.test)
            steps = next(training.batches.steps for training, _ in self.probed if training.student == DISTILLED)
            times = steps // section.every + 2
            seconds = self._seconds(self._student, tokens * times) + self._seconds(self._teacher, tokens)
            yield PlannedStage("probe", "measuring", seconds, times, run=self.title)
        if plan := PLANS.get(prepared.plan.recipe.evaluation.efficiency):
            seconds = self._latencies(plan)
            yield PlannedStage("measuring time and memory", "measuring", seconds, run=self.title)
        rows = next(iter(prepared.data.split.evaluation.values()))
        compared = row_tokens(rows) * min(CKA_ROWS, len(rows)) / max(len(rows), 1)
        seconds = self._seconds(self._student, compared) + self._seconds(self._teacher, compared)
        yield PlannedStage("comparing layers", "measuring", seconds, run=self.title)

    def _latencies(self, plan: LatencyPlan) -> float:
        """Return the seconds for latencies: each setting its part of the time, or what its most forwards take.

        For an accelerator it is all of the time: single rows take it longer there than their operations tell.
        """
        if not self.basis.is_timed:
            return plan.seconds
        prepared, left = self.prepared, plan.seconds
        settings = plan.settings(("data", "max_length"), prepared.plan.args.device)
        rows = next(iter(prepared.data.split.evaluation.values()))
        length = row_tokens(rows) / max(len(rows), 1)
        both = self._student + self._teacher
        for number, setting in enumerate(settings):
            tokens = setting.batch_size * (
                length if setting.lengths == "data" else prepared.plan.recipe.data.max_length
            )
            forward, (least, most) = self._seconds(both, tokens), plan.forwards
            left -= max(min(left / (len(settings) - number), most * forward), least * forward)
        return plan.seconds - left

    # Disk ----------------------------------------------------------------------------------------------------

    def disk(self) -> DiskUse:
        """Return what lies on disk at its fullest, with that of links."""
        uses = [link.disk() for link in self.links]
        checkpoints = [  # one that was written may lack what gathers over steps, such as copies of weights
            one.kept * max(own.checkpoint[1] if own.checkpoint else 0, one.checkpoint_bytes) for one, own in self.probed
        ]
        kept = [one for one, _ in self.probed if one.student in (None, DISTILLED)]
        models = sum(4 * one.parameters * (one.times if one.student is None else 1) for one in kept)
        row_bytes, epochs = self._cached
        rows = next((len(one.rows) for one, _ in self.probed if one.has_cache), 0)
        return DiskUse(
            max([*checkpoints, *(one.checkpoints for one in uses)], default=0),
            models + sum(one.models for one in uses),
            round(row_bytes * epochs * rows) + sum(one.caches for one in uses),
        )
