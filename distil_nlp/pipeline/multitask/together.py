"""The training of the students of all tasks together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import EarlyStoppingCallback, PreTrainedModel, TrainingArguments

from distil_nlp.data.fingerprint import hash_json
from distil_nlp.models import StudentReport
from distil_nlp.models.shared_encoder import share_encoder
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.multitask.steps import TaskSteps
from distil_nlp.pipeline.multitask.students import TaskPipeline, TaskStudentRun
from distil_nlp.pipeline.plan import DISTILLED, StudentPlan
from distil_nlp.pipeline.run_folder import (
    STUDENT,
    VARIANTS,
)
from distil_nlp.pipeline.students import TRAINING
from distil_nlp.results.provenance import Provenance
from distil_nlp.training.fit import save_with_record, train_to_end
from distil_nlp.training.multitask import MultitaskTrainer


@dataclass
class Together:
    """All tasks of a run, whose students are trained together.

    Attributes:
        folder: of the run.
        pipelines: that of each task.
        args: training arguments of the run's own students.
        steps: how many steps there are, and how many of each task.
    """

    folder: Path
    pipelines: Mapping[str, TaskPipeline]
    args: TrainingArguments
    steps: TaskSteps
    _made_args: dict[StudentPlan, TrainingArguments] = field(default_factory=dict, init=False)

    @property
    def first(self) -> TaskPipeline:
        """The pipeline of the first task, whose student's encoder is that of all."""
        return next(iter(self.pipelines.values()))

    def check_steps(self) -> None:
        """Raise UserError if no step of a training would be of some task."""
        for plan in self.first.plan.students:
            self.steps.validate(plan, self.args_of(plan))

    def _first_plan(self, plan: StudentPlan) -> StudentPlan:
        """Return the plan of the first task's student of the same name and seed."""
        return next(one for one in self.first.plan.students if (one.name, one.seed) == (plan.name, plan.seed))

    def train_missing(self, number: int) -> None:
        """Train the students of a seed, or of a baseline, unless all of them are trained.

        Args:
            number: of the student in the plan of each task.
        """
        plan = self.first.plan.students[number]
        if plan.is_plain:
            return
        runs = {name: own.joint_run(own.plan.students[number]) for name, own in self.pipelines.items()}
        if all(run.is_trained for run in runs.values()):
            return
        students = {name: run.build(self.pipelines[name].loaded_teacher)[0] for name, run in runs.items()}
        share_encoder(list(students.values()), list(students))
        self._train(plan, runs, students)

    def _train(
        self, plan: StudentPlan, runs: Mapping[str, TaskStudentRun], students: Mapping[str, PreTrainedModel]
    ) -> None:
        args = self.args_of(plan)
        parts = {name: run.trainer(students[name], self.pipelines[name].loaded_teacher) for name, run in runs.items()}
        recipe = self.first.plan.recipe
        patience = recipe.evaluation.early_stopping_patience if plan.name == DISTILLED else None
        stopping = [EarlyStoppingCallback(patience)] if patience else None
        trainer = MultitaskTrainer(parts, args, recipe.multitask.sampling_power, callbacks=stopping)
        for own in self.pipelines.values():
            own.claim()
        trainer.accelerator.wait_for_everyone()
        record = train_to_end(trainer, title=self._title(plan), provenance=self._provenance(runs))
        records = trainer.records(record)
        trainer.detach()
        if args.should_save:
            for name, run in runs.items():
                run.folder.mkdir(parents=True, exist_ok=True)
                state = students[name].state_dict()
                made = (self.pipelines[name].tokenizer, run.folder / STUDENT, run.folder / TRAINING, records[name])
                save_with_record(students[name], state, *made, run.provenance)
        trainer.accelerator.wait_for_everyone()

    def args_of(self, plan: StudentPlan) -> TrainingArguments:
        """Return the training arguments of all students of a seed or baseline together.

        They are made once: to make some resets the state that trainers on the way have of accelerate.
        """
        if plan.is_main:
            return self.args
        if plan not in self._made_args:
            folder, recipe = self.folder / VARIANTS / plan.folder.name, self.first.plan.recipe
            fields = recipe.training | {"seed": plan.seed, "report_to": "none"}
            self._made_args[plan] = builders.training_arguments(fields, folder, recipe)
        return self._made_args[plan]

    def steps_of_task(self, name: str, plan: StudentPlan) -> int:
        """Return how many steps of a training are of a task."""
        own = self._first_plan(plan)
        return self.steps.by_task(own, self.args_of(own))[name]

    def start_of(self, plan: StudentPlan) -> tuple[PreTrainedModel, StudentReport]:
        """Return the student of the first task as it starts, and the report of its tensors.

        Args:
            plan: of the student of any task.
        """
        own = self._first_plan(plan)
        return self.first.joint_run(own).build(self.first.loaded_teacher)

    def _title(self, plan: StudentPlan) -> str:
        which = "the students" if len(self.first.plan.students) == 1 else f"the students ({plan})"
        steps = self.steps.sentence(plan, self.args_of(plan))
        return f"\ntraining {which} of all tasks together: {steps}"

    def _provenance(self, runs: Mapping[str, TaskStudentRun]) -> Provenance:
        """Return the fingerprints of all students of a training together, for its checkpoints."""
        all_of = [run.provenance for run in runs.values()]
        return replace(
            all_of[0],
            recipe=hash_json([one.recipe for one in all_of]),
            evaluation_rows=hash_json([one.evaluation_rows for one in all_of]),
        )
