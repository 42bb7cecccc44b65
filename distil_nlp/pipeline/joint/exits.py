"""Exits within the student: Be Your Own Teacher (Zhang et al. 2019, arXiv:1905.08094), with plain models at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.losses.heads import ExitHint, FromHeads
from distil_nlp.models import load_model
from distil_nlp.models.tails import Tail, join_tail
from distil_nlp.objective.heads import OWN_LOGITS, LogitsOf
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Schedule
from distil_nlp.pipeline.joint.base import JOINT, JointScheme, Judge, output_terms, validate_joint_plan
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.signals.types import ProjectionInput
from distil_nlp.tasks import Head
from distil_nlp.training.fit import Finished

EXITS = "exits"
"""Folder of the exits' models, within the run's."""


class Exits(JointScheme):
    """Exits after some of the student's blocks, each with a copy of its head.

    Each exit i minimises (1 − α) · L_i + α · T² · KL(p_C ‖ p_i) + λ · ‖F_i − F_C‖² (arXiv:1905.08094, section 3).
    L_i are the objective's own terms on outputs (labels, teacher) on the exit's logits, p_C is the student's own output
    and F are [CLS] states; p_C and F_C get no gradient. The student itself keeps all of its terms; what the exits
    minimise is added. The paper names no values; α = 0.1 and T = 3 are those of a reimplementation,
    github.com/luanyunteng/pytorch-be-your-own-teacher.

    Attributes:
        tails: depth → the exit's module, once `extend` has made them.
    """

    key = "exits"

    def __init__(self, student: StudentSection):
        super().__init__(student)
        assert student.exits is not None  # or there would be no such scheme
        self.section = student.exits
        self.tails: dict[int, Tail] = {}

    def validate(self, plan: RunPlan) -> None:
        validate_joint_plan(plan, self.where)
        if len(set(self.section.after)) < len(self.section.after):
            raise UserError(f"{self.where}.after", "each depth once", str(self.section.after), fix="leave one out")

    def extend(self, objective: Objective, student: PreTrainedModel, teacher: PreTrainedModel, seed: int) -> Objective:
        depth, section = student.config.num_hidden_layers, self.section
        after = [blocks for blocks in sorted(section.after) if blocks != depth]
        if not after or after[-1] > depth:
            raise UserError(
                f"{self.where}.after",
                f"numbers of blocks from 1 to {depth - 1} (the student itself leaves after {depth})",
                str(section.after),
                why="there is nothing between the student's blocks there",
                fix="name other depths, or a deeper student by student.num_layers",
            )
        self.tails = {blocks: Tail(student) for blocks in after}
        terms: list[Any] = list(objective.terms)
        joint = dict(objective.joint)
        for blocks, tail in self.tails.items():
            name = exit_name(blocks)
            head = LogitsOf(name)
            joint[name] = (ProjectionInput(blocks - 1, "", "states"), tail)
            terms += [term.of_head(head, name, 1 - section.alpha) for term in output_terms(objective)]
            weight, hint = Schedule(section.alpha), Schedule(section.hint)
            terms.append(FromHeads(f"{name}_from_student", weight, head, [OWN_LOGITS], section.temperature))
            terms.append(ExitHint(f"{name}_hint", hint, blocks - 1, depth - 1))
        return Objective(terms, objective.kind, objective.balance, joint)

    def finish(self, student: PreTrainedModel, judge: Judge) -> Finished:
        further = {exit_folder(blocks): join_tail(student, blocks, tail) for blocks, tail in self.tails.items()}
        exits = [{"layers": blocks, "folder": exit_folder(blocks)} for blocks in self.tails]
        return Finished(student, further, {JOINT: {"exits": exits}})


def exit_name(blocks: int) -> str:
    """Return the name of an exit after so many blocks, in logs and results."""
    return f"exit_{blocks}"


def exit_folder(blocks: int) -> str:
    """Return the folder of an exit's plain model, within the run's."""
    return f"{EXITS}/{blocks}-layers"


def load_exits(folder: Path, training: Mapping[str, Any], head: Head) -> dict[int, PreTrainedModel]:
    """Return the plain models of a student's exits, by their depths; none for a student without any.

    Args:
        folder: of the run.
        training: record of its training.
        head: of the models.
    """
    return {one["layers"]: load_model(str(folder / one["folder"]), head) for one in saved_exits(training)}


def saved_exits(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return depth (`layers`) and `folder` of each exit that a training saved, from its record."""
    return training.get(JOINT, {}).get(EXITS, [])
