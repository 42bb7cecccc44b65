"""`JointScheme`: what trains together with a student, in one optimiser and one forward, and what leaves at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.objective import OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Curve, Schedule
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.training.checks import validate_joint
from distil_nlp.training.fit import Finished

JOINT = "joint"
"""Key of a training's record with what a scheme left beside the student."""
Scorer = Callable[[PreTrainedModel, str], dict[str, Outputs]]
"""(model, its name for people) → its outputs on each split; every process calls it."""
Chooser = Callable[[PreTrainedModel, str], dict[str, Outputs] | None]
"""(model, its name for people) → its outputs on the rows to choose by; None without any."""


@dataclass(frozen=True)
class Judge:
    """Scores models after a training.

    Attributes:
        task: name of the task.
        score: runs a model on the evaluation rows.
        choose: runs a model on the rows that checkpoints are chosen by.
    """

    task: str
    score: Scorer
    choose: Chooser


class JointScheme:
    """A student alone, without further modules; the base of the schemes that have some.

    Args:
        student: the recipe's section.

    Attributes:
        key: in the recipe's section `student`.
        where: the whole recipe key.
    """

    key: ClassVar[str] = ""

    def __init__(self, student: StudentSection):
        self.student = student

    @property
    def where(self) -> str:
        return f"student.{self.key}"

    def validate(self, plan: RunPlan) -> None:
        """Raise UserError for a recipe that the scheme does not go with."""

    def extend(self, objective: Objective, student: PreTrainedModel, teacher: PreTrainedModel, seed: int) -> Objective:
        """Return the objective with the scheme's modules and terms.

        Args:
            objective: unbound.
            student: initialised; stays as it is.
            teacher: likewise.
            seed: of the modules' initialisation.

        Raises:
            UserError: if the student cannot have such modules.
        """
        return objective

    def finish(self, student: PreTrainedModel, judge: Judge) -> Finished:
        """Return what is saved of a trained student and the modules of the last `extend`.

        Args:
            student: trained, without modules and hooks.
            judge: scores models.
        """
        return Finished(student)


def output_terms(objective: Objective) -> list[OutputTerm]:
    """Return the terms on outputs, which further heads have too."""
    return [term for term in objective.terms if isinstance(term, OutputTerm)]


def ramped(weight: float, ramp: Curve) -> Schedule:
    """Return a weight that grows from 0 over the training, by a curve; `constant` for one that does not change."""
    return Schedule(weight) if ramp == "constant" else Schedule(0.0, weight, ramp)


def validate_joint_plan(plan: RunPlan, where: str) -> None:
    """Raise UserError for what no scheme of joint modules goes with: language modelling, no terms on outputs, sharding.

    Args:
        where: recipe key of the scheme.
    """
    kind = plan.task.kind
    if not kind.has_row_outputs or not kind.learns_labels:
        raise UserError(
            where,
            "a task with an output for each row",
            kind.title,
            why="its further heads give one output for a whole row"
            if not kind.has_row_outputs
            else "heads learn from each other by distributions or numbers",
            fix="leave it out",
        )
    if not output_terms(plan.objective):
        raise UserError(
            where,
            "a term on outputs, such as hard_label or soft_target_kl",
            ", ".join(plan.objective.names),
            why="its further heads would have nothing to learn but each other",
            fix="add one, or leave it out",
        )
    validate_joint(True, plan.args, where)
