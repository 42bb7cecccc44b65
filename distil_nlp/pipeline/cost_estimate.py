"""An estimate of what a run takes: time from a few timed steps, memory, disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.data.sampling import grouped_order
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.builders.training import training_arguments
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.pipeline.plan import DISTILLED, RunPlan
from distil_nlp.pipeline.step_timing import time_micro_batches
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.pipeline.teacher import finetuning_fields, is_finetuned, teacher_folder_of
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.formatting import duration, plural
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.training.trainer import DistillationTrainer

_TENSORS = 3
"""Tensors of a checkpoint for each parameter: the weight and AdamW's two moments."""


@dataclass(frozen=True)
class PlannedTraining:
    """One kind of training in a run.

    Attributes:
        name: for people.
        build: arguments → trainer.
        args: training arguments.
        steps: optimiser steps.
        times: number of such trainings.
        parameters: of the trained model, and of what trains together with it.
        beside: bytes that a checkpoint has beside these and their moments.
    """

    name: str
    build: Callable[[TrainingArguments], DistillationTrainer]
    args: TrainingArguments
    steps: int
    times: int
    parameters: int
    beside: int = 0


def estimate_costs(
    plan: RunPlan, run: StudentRun, student: PreTrainedModel, teacher: PreTrainedModel
) -> Iterator[tuple[str, str]]:
    """Yield what a run's trainings take, as (subject, sentence); both models are changed by the timed steps."""
    total, peak, trainings = 0.0, 0.0, list(_trainings(plan, run, student, teacher))
    for training in trainings:
        micro, peak = time_micro_batches(training.build, training.args)
        step = micro * training.args.gradient_accumulation_steps
        total += step * training.steps * training.times
        times = f" {plural(training.times, 'time')}" if training.times > 1 else ""
        yield "time", f"{training.name}: {duration(step * training.steps)}{times}, {training.steps:,} × {step:.2f} s"
    if len(trainings) > 1:
        yield "time", f"{duration(total)} together, without scoring, measuring and the report"
    yield "memory", f"{peak / 1024:.1f} GiB in those steps, with rows drawn at random"
    checkpoints = max((4 * _TENSORS * one.parameters + one.beside) * _kept(one.args) for one in trainings)
    models = sum(4 * one.parameters for one in trainings if one.args.should_save)
    yield "disk", f"{(checkpoints + models) / 1e6:,.0f} MB at most, checkpoints included"


def steps_of(args: TrainingArguments, rows: Any, group_size: int | None = None) -> int:
    """Return the optimiser steps of a training, as Trainer counts them.

    Args:
        group_size: most rows of a query in a batch of whole queries; None for batches of single rows.
    """
    if args.max_steps > 0:
        return args.max_steps
    count = grouped_order(rows, args, group_size).num_slots if group_size else len(rows)
    batches = math.ceil(count / (args.train_batch_size * args.world_size))
    return math.ceil(args.num_train_epochs * max(math.ceil(batches / args.gradient_accumulation_steps), 1))


def _trainings(
    plan: RunPlan, run: StudentRun, student: PreTrainedModel, teacher: PreTrainedModel
) -> Iterator[PlannedTraining]:
    """Yield the kinds of training of a run; the teacher's comes last, because it changes the teacher."""
    steps = steps_of(plan.args, run.data.split.train, run.data.group_size)
    for name in dict.fromkeys(one.name for one in plan.students):
        alike = [one for one in plan.students if one.name == name]
        title = "distilling" if name == DISTILLED else name.replace("_", " ")

        recipe = alike[0].recipe(run.recipe, None)

        def build(args: TrainingArguments, first: Any = alike[0], recipe: Any = recipe) -> DistillationTrainer:
            return replace(run, args=args, recipe=recipe, objective=plan.objective_of(first)).trainer(student, teacher)

        joint = scheme_of(recipe).extend(plan.objective_of(alike[0]), student, teacher, plan.args.seed).joint.values()
        size = student.num_parameters() + sum(weight.numel() for _, module in joint for weight in module.parameters())
        beside = _kept_beside(recipe, plan.objective_of(alike[0]), student, run.data.split.train)
        yield PlannedTraining(title, build, plan.args, steps, len(alike), size, beside)
    if plan.recipe.teacher.finetune is None or is_finetuned(teacher_folder_of(plan.recipe, run.data.read_by())):
        return
    data = run.data.read_by()
    rows, kind = data.labelled(), data.kind

    def build_teacher(args: TrainingArguments) -> DistillationTrainer:
        objective = Objective([HardLabel()], kind)
        return DistillationTrainer(
            model=teacher.train(), args=args, objective=objective, train_dataset=rows, data_collator=data.collator
        )

    args = training_arguments(finetuning_fields(plan.recipe), plan.folder, plan.recipe)
    yield PlannedTraining(
        "fine-tuning the teacher",
        build_teacher,
        args,
        steps_of(args, rows, run.data.group_size),
        1,
        teacher.num_parameters(),
    )


def _kept_beside(recipe: Recipe, objective: Objective, student: PreTrainedModel, rows: Any) -> int:
    """Return the bytes of a checkpoint for averages of weights, and for a student that teaches itself."""
    average = 4 * student.num_parameters() if recipe.student.ema is not None else 0
    own = builders.self_teacher(recipe, student) if objective.needs_teacher else None
    number = len(rows) if hasattr(rows, "__len__") else 0  # a stream has no store of its rows
    return average + (own.state_bytes(number) if isinstance(own, ChangingTeacher) else 0)


def _kept(args: TrainingArguments) -> int:
    """Return how many checkpoints are on disk at once: those that are kept, and the one that is being written."""
    return 0 if args.save_strategy == "no" else (args.save_total_limit or 1) + 1
