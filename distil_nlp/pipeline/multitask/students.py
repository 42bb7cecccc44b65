"""A student whose encoder is shared with those of other tasks, and the stages of one task of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.models import StudentReport
from distil_nlp.models.shared_encoder import share_encoder
from distil_nlp.pipeline.pipeline import Pipeline
from distil_nlp.pipeline.plan import StudentPlan
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.recipe import Recipe


@dataclass
class TaskStudentRun(StudentRun):
    """A student whose encoder is shared with those of other tasks; it is trained with them.

    Attributes:
        start: gives the student of the first task as it starts, and the report of its tensors; None for that itself.
    """

    start: Callable[[], tuple[PreTrainedModel, StudentReport]] | None = None

    def build(self, teacher: PreTrainedModel, score: Any = None) -> tuple[PreTrainedModel, Any]:
        """Return the student as it starts: the head of its own teacher, and the encoder of the first task's student."""
        student, report = super().build(teacher, score)
        if self.start is not None:
            first, of_first = self.start()
            share_encoder([first, student], [_name_of(self.recipe, first=True), _name_of(self.recipe)])
            report.layers = of_first.layers
        return student, report

    @property
    def is_trained(self) -> bool:
        """Whether the student is there as it was saved, or all that is kept of a further one."""
        return self.saved_record() is not None or (not self.is_main and self.kept() is not None)

    def train(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raise RuntimeError: it has been trained together with others."""
        raise RuntimeError(f"{self.folder}: a student of several tasks is not trained alone")


def _name_of(recipe: Recipe, first: bool = False) -> str:
    """Return the name of a recipe's task, or of the first one of its run."""
    return recipe.multitask.tasks[0] if first else str(recipe.multitask.task)


@dataclass
class TaskPipeline(Pipeline):
    """The stages of one task of several.

    Attributes:
        steps: name of a student, its seed → its steps in the training of all tasks, and those of this task among them.
        start: student → the first task's student as it starts, and the report of its tensors; None for the first task.
        scores: scores that need no student, once the teacher is scored.
    """

    steps: Callable[[StudentPlan], int] = lambda student: 0
    start: Callable[[StudentPlan], tuple[PreTrainedModel, StudentReport]] | None = None
    scores: RunScores | None = field(default=None, init=False)

    def first_scores(self) -> RunScores:
        """Return the scores that need no student; the teacher is fine-tuned and scored when this is first called."""
        if self.scores is None:
            self.scores = super().first_scores()
            self.teacher_of(self.plan.main, self.student_run(self.plan.main, self.scores), self.scores)
        return self.scores

    def steps_of(self, student_plan: StudentPlan, scores: RunScores) -> int:
        """Return how many steps of a training of all tasks are of this one."""
        return self.steps(student_plan)

    def student_run(self, student_plan: StudentPlan, scores: RunScores) -> StudentRun:
        """Return the `StudentRun` that scores a student; one that is trained alone is trained by it too."""
        run = super().student_run(student_plan, scores)
        if student_plan.is_plain:
            return run
        start = None if self.start is None else (lambda: self.start(student_plan))  # type: ignore[misc]
        return TaskStudentRun(**{one.name: getattr(run, one.name) for one in dataclasses.fields(run)}, start=start)

    def joint_run(self, student_plan: StudentPlan) -> TaskStudentRun:
        """Return the `TaskStudentRun` of a student that trains together with those of other tasks."""
        run = self.student_run(student_plan, self.first_scores())
        assert isinstance(run, TaskStudentRun)
        run.reference = next(iter(self.first_scores().teacher.values()), None)
        return run

    @property
    def loaded_teacher(self) -> PreTrainedModel:
        """The teacher, once it is scored."""
        assert self.teacher is not None
        return self.teacher
