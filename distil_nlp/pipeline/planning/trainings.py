"""The trainings of a run, each with its batches, its rows and a way to build its trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.builders.training import training_arguments
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.pipeline.plan import DISTILLED, EQUAL_COMPUTE, PLAIN, RANDOM_INIT, StudentPlan
from distil_nlp.pipeline.planning.batches import PlannedBatches, plan_batches
from distil_nlp.pipeline.planning.prepared import PreparedRun
from distil_nlp.pipeline.planning.stage import StageKind
from distil_nlp.pipeline.planning.step_probe import CACHE
from distil_nlp.pipeline.schemes import extensions_of
from distil_nlp.pipeline.teacher import finetuning_fields, is_finetuned, teacher_folder_of, teacher_to_train
from distil_nlp.recipe import Recipe
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.training.trainer import DistillationTrainer

_TENSORS = 3
"""Tensors of a checkpoint for each parameter: the weight and AdamW's two moments."""
SAME_STEPS = {RANDOM_INIT: DISTILLED, EQUAL_COMPUTE: PLAIN}
"""Students whose steps cost what those of another do."""


@dataclass
class PlannedTraining:
    """One kind of training of a run.

    Attributes:
        name: for people.
        kind: of its stage.
        build: arguments → trainer.
        args: training arguments.
        rows: that are trained on.
        batches: all micro-batches of one such training.
        times: number of such trainings.
        done: how many of them an earlier run has done.
        parameters: of the trained model, and of what trains together with it.
        beside: bytes that a checkpoint has beside these and their moments.
        selection: rows that it is evaluated on.
        is_taught: whether the teacher runs in an evaluation.
        heads: number of models that train together with the student, and are scored too.
        has_cache: whether the teacher's outputs come from a cache.
        student: name in the plan; None for a teacher.
    """

    name: str
    kind: StageKind
    build: Callable[[TrainingArguments], DistillationTrainer]
    args: TrainingArguments
    rows: Any
    batches: PlannedBatches
    times: int
    done: int
    parameters: int
    beside: int
    selection: Any
    is_taught: bool
    heads: int = 0
    has_cache: bool = False
    student: str | None = None

    @property
    def checkpoints(self) -> int:
        """Checkpoints that one training writes."""
        return _occasions(self.args.save_strategy, self.args.save_steps, self.args, self.batches)

    @property
    def evaluations(self) -> int:
        """Evaluations of one training."""
        args = self.args
        return _occasions(args.eval_strategy, args.eval_steps or args.logging_steps, args, self.batches) + bool(
            args.eval_on_start
        )

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint, with AdamW."""
        return 4 * _TENSORS * self.parameters + self.beside

    @property
    def kept(self) -> int:
        """Checkpoints on disk at once: those that are kept, and the one that is being written."""
        if self.args.save_strategy == "no":
            return 0
        return min(self.checkpoints, (self.args.save_total_limit or self.checkpoints) + 1)


def _occasions(strategy: str, every: float, args: TrainingArguments, batches: PlannedBatches) -> int:
    """Return how often something is done by a strategy: `no`, `steps`, `epoch` or `best`."""
    if strategy == "no":
        return 0
    if strategy == "epoch":
        return math.ceil(batches.steps / batches.steps_per_epoch)
    if strategy == "best":
        return _occasions(args.eval_strategy, args.eval_steps or args.logging_steps, args, batches)
    return math.ceil(batches.steps / (math.ceil(every * batches.steps) if every < 1 else every))


def planned_students(prepared: PreparedRun, processes: int) -> Iterator[PlannedTraining]:
    """Yield the trainings of a run's students, by their names; its links are runs of their own.

    That of `equal_compute` has the steps of the run's own student: how many it takes follows from what all take.

    Args:
        prepared: the run.
        processes: that share the rows.
    """
    plan, steps = prepared.plan, None
    for name in dict.fromkeys(one.name for one in plan.students):
        alike = [one for one in plan.students if one.name == name]
        training = _training_of(prepared, alike, steps, processes)
        steps = steps or training.batches.steps
        yield training


def planned_finetunings(prepared: PreparedRun, processes: int, known: set[Path]) -> Iterator[PlannedTraining]:
    """Yield the fine-tuning of each teacher, those of several seeds together.

    Args:
        prepared: the run.
        processes: that share the rows.
        known: folders of teachers that are counted already; those of these are added.
    """
    by_number: dict[int, list[Recipe]] = {}
    for number, recipe in prepared.finetunings():
        by_number.setdefault(number, []).append(recipe)
    for number, recipes in by_number.items():
        data = prepared.data.read_by(number)
        folders = {teacher_folder_of(recipe, data) for recipe in recipes}
        done = sum(folder in known or is_finetuned(folder) for folder in folders)
        known |= folders
        yield _finetuning(prepared, number, recipes, done, processes)


def _training_of(prepared: PreparedRun, alike: list[StudentPlan], steps: int | None, processes: int) -> PlannedTraining:
    """Return the training of students that differ in their seed alone."""
    first, own = alike[0], prepared.run_of(alike[0], steps)
    guide, student = prepared.guide_of(first), prepared.student
    has_cache = prepared.plan.recipe.teacher.cache is not None and own.objective.needs_teacher

    def build(args: TrainingArguments) -> DistillationTrainer:
        recipe = own.recipe.model_copy(deep=True)
        if has_cache:
            section: Any = prepared.plan.recipe.teacher.cache
            recipe.teacher.cache = section.model_copy(update={"folder": str(Path(str(args.output_dir), CACHE))})
        objective = prepared.plan.objective_of(first)
        return replace(own, args=args, recipe=recipe, objective=objective).trainer(student, guide)

    objective = prepared.plan.objective_of(first)
    joint = scheme_of(own.recipe).extend(objective, student, guide, own.args.seed).joint.values()
    further = sum(weight.numel() for _, module in joint for weight in module.parameters())
    rows, data = own.training_rows, prepared.data
    return PlannedTraining(
        name="distilling" if first.name == DISTILLED else first.name.replace("_", " "),
        kind="student" if first.name == DISTILLED else "baseline",
        build=build,
        args=own.args,
        rows=rows,
        batches=plan_batches(rows, own.args, data.group_size, prepared.plan.recipe.data.max_length, processes),
        times=len(alike),
        done=0,
        parameters=student.num_parameters() + further,
        beside=_kept_beside(own, student, guide, rows),
        selection=data.split.selection,
        is_taught=own.objective.needs_teacher,
        heads=len(joint),
        has_cache=has_cache,
        student=first.name,
    )


def _finetuning(
    prepared: PreparedRun, number: int, recipes: list[Recipe], done: int, processes: int
) -> PlannedTraining:
    """Return the fine-tuning of one teacher, by its number."""
    recipe, data = recipes[0], prepared.data.read_by(number)
    rows = data.labelled()
    args = training_arguments({"save_total_limit": 2, **finetuning_fields(recipe)}, prepared.plan.folder, recipe)

    def build(args: TrainingArguments) -> DistillationTrainer:
        model = teacher_to_train(recipe, data.head).train()  # anew: the run's own is looked at by what follows
        objective = Objective([HardLabel()], data.kind)
        return DistillationTrainer(
            model=model, args=args, objective=objective, train_dataset=rows, data_collator=data.collator
        )

    several = len(builders.single_teachers(prepared.plan.recipe)) > 1
    members: Any = getattr(prepared.teacher, "members", [prepared.teacher])
    return PlannedTraining(
        name=f"fine-tuning {recipe.teacher.name}" if several else "fine-tuning the teacher",
        kind="teacher",
        build=build,
        args=args,
        rows=rows,
        batches=plan_batches(rows, args, data.group_size, recipe.data.max_length, processes),
        times=len(recipes),
        done=done,
        parameters=members[number].num_parameters(),
        beside=0,
        selection=data.split.selection,
        is_taught=False,
    )


def _kept_beside(run: Any, student: PreTrainedModel, teacher: PreTrainedModel, rows: Any) -> int:
    """Return the bytes of a checkpoint for extensions of the training, and for a student that teaches itself."""
    extensions = extensions_of(run.recipe, teacher).values()
    own = builders.self_teacher(run.recipe, student) if run.objective.needs_teacher else None
    number = len(rows) if hasattr(rows, "__len__") else 0  # a stream has no store of its rows
    itself = own.state_bytes(number) if isinstance(own, ChangingTeacher) else 0
    return sum(one.state_bytes(student) for one in extensions) + itself
