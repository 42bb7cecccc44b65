"""`Pipeline`: the stages of one run: teacher, student, baselines, scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.data import TransferSet
from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import Metrics, evaluator_of
from distil_nlp.evaluation.linear_probe import LinearProbe
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.models import (
    StudentReport,
    load_model,
)
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.compute import total_of
from distil_nlp.pipeline.findings import Findings
from distil_nlp.pipeline.joint.base import JOINT
from distil_nlp.pipeline.links import chain_of, guide_among
from distil_nlp.pipeline.plan import DISTILLED, EQUAL_COMPUTE, NO_DISTILLATION, PLAIN, RunPlan, StudentPlan
from distil_nlp.pipeline.provenance import fingerprint_of_recipe
from distil_nlp.pipeline.run_folder import STUDENT, claim
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.stages import Stages
from distil_nlp.pipeline.students import StudentRun, TrainedStudent
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.pipeline.trial import try_models
from distil_nlp.results.provenance import Provenance
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass
class Pipeline:
    """The stages of one run.

    Attributes:
        plan: the resolved recipe.
        tokenizer: the student's, which is the teacher's unless they have other tokens.
        data: rows and collator.
        provenance: of recipe, rows and models.
        teachers: loads and checks the teachers.
        probe: scores the run's own student while it trains; None if nobody asked.
        teacher: the teacher of the student that is trained now; None before the first.
        guide: what teaches in its place where there are links; None until it is needed.
    """

    plan: RunPlan
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet
    provenance: Provenance
    teachers: TeacherLoader
    probe: LinearProbe | None = None
    teacher: PreTrainedModel | None = None
    guide: PreTrainedModel | None = None

    def __post_init__(self) -> None:
        self.stages, self.links = Stages(self.plan), chain_of(self.plan.recipe)

    @property
    def args(self) -> TrainingArguments:
        """Training arguments of the run's own student."""
        return self.plan.args

    def run(self, is_new: bool) -> dict[str, Any]:
        """Train and score every student; return the results on the main process, {} on others.

        Args:
            is_new: whether nothing of an earlier start is in the folder.
        """
        main, *others = self.plan.students
        scores = self.first_scores()
        initialisation = self.main_student(main, scores, is_new)
        for student in others:
            self.stages.begin(self.stages.student(student), self.seconds_of(student, scores))
            scores.students.setdefault(student.name, {})[student.seed] = self.further_student(student, scores)
        # the main student's teacher again, where each seed has its own
        self.teacher_of(main, self.student_run(main, scores), scores)
        assert self.teacher is not None  # it has taught
        if not self.args.should_save:
            return {}
        made = (self.plan, self.data, self.teachers, self.teacher, self.links, self.stages)
        return Findings(*made, scores).results(initialisation)

    def first_scores(self) -> RunScores:
        """Return the scores that need no model, as the first stage begins."""
        self.stages.begin(self.stages.teacher)
        return RunScores(self.data.task, self.majority())

    def majority(self) -> Metrics:
        """Return the scores of the majority-class baseline; for text, those of token frequencies."""
        split = self.data.split
        rows = next(iter(split.evaluation.values()))
        return evaluator_of(self.data.kind).majority(self.data.task, split.train, rows, self.data.scored_by)

    def main_student(self, student_plan: StudentPlan, scores: RunScores, is_new: bool) -> dict[str, Any]:
        """Train and score the run's own student; return which tensors were copied into it."""
        run = self.student_run(student_plan, scores)
        teacher = self.teacher_of(student_plan, run, scores)
        predictor = run.predictor
        self.stages.begin(self.stages.student(student_plan))
        origin = self.origin_of(student_plan, teacher)
        student, report = run.build(
            origin, lambda cut: metrics_of(self.data.task, predictor.predict(cut, "cut student"))
        )
        logger.info(str(report))
        builders.check_student(student, self.plan.recipe, self.tokenizer)
        guide = self.guide_of(student_plan, teacher)
        try_models(guide, student, self.plan.objective_of(student_plan), self.plan.recipe)
        scores.copied = predictor.predict(student, "copy", is_kept=True)
        training = None if is_new else run.saved_record()
        if training is None:
            training = run.train(student, guide, before=self.claim)
        else:
            self.claim()
        trained = run.score_saved(training)
        scores.students[DISTILLED] = {student_plan.seed: trained}
        if self.args.should_save:
            run.save_thresholds(trained)
        if self.plan.recipe.student.augment is not None:
            scores.train_loss = self.train_loss(run, ensemble_members(teacher)[0])
        run.keep_outputs(trained)
        return _initialisation(report, training)

    def train_loss(self, run: StudentRun, teacher: PreTrainedModel) -> dict[str, float] | None:
        """Return both models' loss on training rows, which tells whether the student under-fits; None if unknown."""
        theirs = run.predictor.read_by().train_loss(teacher, "teacher")
        own = run.predictor.train_loss(load_model(str(self.plan.folder / STUDENT), self.data.head), "student")
        return theirs and own and {"rows": own["rows"], "teacher": theirs["loss"], "student": own["loss"]}

    def further_student(self, student_plan: StudentPlan, scores: RunScores) -> TrainedStudent:
        """Train and score another seed's student, or a baseline's."""
        run = self.student_run(student_plan, scores)
        teacher = self.teacher_of(student_plan, run, scores)
        return run.train_and_score(self.origin_of(student_plan, teacher), self.guide_of(student_plan, teacher))

    def guide_of(self, student_plan: StudentPlan, teacher: PreTrainedModel) -> PreTrainedModel:
        """Return the model that a student learns from: the teacher, the last link's student, or all of them."""
        if student_plan.is_plain or not self.links:
            return guide_among(self.plan.recipe, [], teacher, self.data.kind, student_plan.is_plain)
        if self.guide is None:
            self.guide = guide_among(self.plan.recipe, self.linked, teacher, self.data.kind, False)
        return self.guide

    def origin_of(self, student_plan: StudentPlan, teacher: PreTrainedModel) -> PreTrainedModel:
        """Return the model that a student is made of: the teacher, or the last assistant."""
        from_assistant = self.plan.recipe.teacher.start == "assistant" and not student_plan.is_plain
        return self.linked[-1] if from_assistant else teacher

    @cached_property
    def linked(self) -> list[PreTrainedModel]:
        """The students of the links; of a chain that is not guided densely the last one alone."""
        is_dense = self.plan.recipe.teacher.guided == "dense"
        return [load_model(one.student, self.data.head) for one in self.links[0 if is_dense else -1 :]]

    def seconds_of(self, student_plan: StudentPlan, scores: RunScores) -> float | None:
        """Return the seconds that a distilled student's training took before; None for another objective or teacher."""
        own = scores.students[DISTILLED].get(self.args.seed)
        is_alike = student_plan.name != NO_DISTILLATION and not self.plan.recipe.teacher.reseed
        return own.training["seconds"] if own and is_alike else None

    def student_run(self, student_plan: StudentPlan, scores: RunScores) -> StudentRun:
        """Return the `StudentRun` that trains and scores a student."""
        recipe = student_plan.recipe(self.plan.recipe, self.steps_of(student_plan, scores))
        args = self.args
        if not student_plan.is_main:
            args = builders.training_arguments(recipe.training, student_plan.folder, recipe)
        objective = self.plan.objective_of(student_plan)
        provenance = replace(self.provenance, recipe=fingerprint_of_recipe(recipe))
        place = (student_plan.folder, args, self.tokenizer, self.data, provenance, student_plan.is_main)
        return StudentRun(recipe, objective, *place, probe=self.probe if student_plan.is_main else None)

    def steps_of(self, student_plan: StudentPlan, scores: RunScores) -> int | None:
        """Return the steps of a baseline: those of the run's own student, or as many as take the same operations.

        None before that is trained.

        Raises:
            UserError: if operations cannot be counted.
        """
        own = scores.students.get(DISTILLED, {}).get(self.args.seed)
        if own is None:
            return None
        steps = own.training["max_steps"]
        if student_plan.name != EQUAL_COMPUTE:
            return steps
        spent = total_of("flops", [own.training, *(link.to_dict() for link in self.links)])
        plain = total_of("flops", [scores.students[PLAIN][student_plan.seed].training])
        if not spent or not plain:
            raise UserError(
                "evaluation.baselines",
                "a run whose operations are counted, for equal_compute",
                "torch_compile, FSDP or DeepSpeed, or a run of an older version",
                why="it is not known how many steps take as many",
                fix="leave equal_compute out",
            )
        return max(round(steps * spent / plain), 1)

    def teacher_of(self, student_plan: StudentPlan, run: StudentRun, scores: RunScores) -> PreTrainedModel:
        """Return the teacher of all students, or the seed's own; it is scored once."""
        reseeds = self.plan.recipe.teacher.reseed
        if self.teacher is None or reseeds:
            self.teacher = self.teachers.load(run.recipe)
        is_scored = student_plan.seed in scores.teacher if reseeds else scores.teacher
        if not is_scored:
            outputs, members = self.teachers.predict(self.teacher, run)
            if outputs:
                scores.teacher[student_plan.seed], scores.members[student_plan.seed] = outputs, members
            if self.plan.asks_teacher:
                self.teachers.check(run, members, scores.majority)
        run.reference = scores.teacher.get(student_plan.seed) or next(iter(scores.teacher.values()), None)
        return self.teacher

    def claim(self) -> None:
        """Claim the output folder for this run."""
        if self.args.should_save:
            claim(self.plan.folder, self.plan.recipe, self.provenance)


def _initialisation(report: StudentReport, training: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of the student's parameters; of several that trained together, that of the one that is kept."""
    kept = report.to_dict()
    for found in training.get(JOINT, {}).values():
        if isinstance(found, dict):
            found["members"][0]["initialisation"] = kept
            return found["members"][found["exported"] - 1]["initialisation"]
    return kept
