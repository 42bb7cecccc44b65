"""The stages of a run, numbered on the terminal, each with the time that it takes where an earlier one told it."""

from __future__ import annotations

from distil_nlp.pipeline.plan import RunPlan, StudentPlan
from distil_nlp.reporting.formatting import duration
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

COSTS = "measuring time and memory of teacher and student"
FIDELITY = "comparing the student with the teacher, layer by layer"
_OF_ANSWERS = (
    "scoring the answers",
    "measuring time and memory of the student",
    "comparing the student with the answers",
)
"""Where answers in the data's columns teach: the stages of the teacher, of costs and of fidelity."""


class Stages:
    """Logs `step 2 of 5: …` before each stage."""

    def __init__(self, plan: RunPlan):
        self.teacher = f"{'fine-tuning and ' * (plan.recipe.teacher.finetune is not None)}scoring the teacher"
        self.costs, self.fidelity = COSTS, FIDELITY
        if plan.has_answers:
            self.teacher, self.costs, self.fidelity = _OF_ANSWERS
        self._students, self._is_multitask = plan.students, bool(plan.recipe.multitask.tasks)
        costs = [self.costs] if plan.recipe.evaluation.efficiency != "off" else []
        self.names = [self.teacher, *map(self.student, plan.students), *costs, self.fidelity]

    def student(self, student: StudentPlan) -> str:
        """Return the name of the stage that trains a student; one that trains with other tasks is scored alone."""
        work = "scoring" if self._is_multitask and not student.is_plain else "training and scoring"
        if len(self._students) == 1:
            return f"{work} the student"
        number = self._students.index(student) + 1
        return f"{work} student {number} of {len(self._students)} ({student})"

    def begin(self, name: str, seconds: float | None = None) -> None:
        """Log a stage.

        Args:
            name: one of `names`.
            seconds: the time of its training, if an earlier one of the same work has been timed.
        """
        about = f", about {duration(seconds)} of training" if seconds else ""
        logger.info(f"\nstep {self.names.index(name) + 1} of {len(self.names)}: {name}{about}")
