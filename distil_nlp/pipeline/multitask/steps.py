"""The steps of a training of several tasks: how many there are, and how many of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from distil_nlp.data import TransferSet
from distil_nlp.data.sampling import draw_seed, epoch_length
from distil_nlp.data.task_sampling import TaskDraws
from distil_nlp.errors import UserError, listed
from distil_nlp.pipeline.plan import NO_DISTILLATION, StudentPlan
from distil_nlp.reporting.formatting import plural
from distil_nlp.training.dataloaders import rows_per_step


@dataclass(frozen=True)
class TaskSteps:
    """The steps of a training of several tasks.

    Attributes:
        datasets: name of a task → its rows.
        power: see `TaskDraws`.
    """

    datasets: Mapping[str, TransferSet]
    power: float

    def by_task(self, plan: StudentPlan, args: TrainingArguments) -> dict[str, int]:
        """Return the steps of each task for the students of a seed or baseline.

        Args:
            args: their training arguments.
        """
        rows = {name: self._rows(data, plan) for name, data in self.datasets.items()}
        draws = TaskDraws(tuple(map(len, rows.values())), self.power, draw_seed(args))
        return dict(zip(self.datasets, draws.steps(self._total(rows, args)), strict=True))

    def sentence(self, plan: StudentPlan, args: TrainingArguments) -> str:
        """Return the steps of all tasks and of each, in words."""
        steps = self.by_task(plan, args)
        shares = ", ".join(f"{count:,} of {name}" for name, count in steps.items())
        return f"{plural(sum(steps.values()), 'step')} of {rows_per_step(args)} rows, {shares}"

    def validate(self, plan: StudentPlan, args: TrainingArguments) -> None:
        """Raise UserError if no step would be of some task."""
        without = [name for name, count in self.by_task(plan, args).items() if not count]
        if without and not plan.is_plain:
            raise UserError(
                "training.max_steps",
                "a step of each task",
                f"none of {listed(without)} for {plan}",
                why="its student would learn nothing",
                fix="train for more steps, or lower multitask.sampling_power",
            )

    def _rows(self, data: TransferSet, plan: StudentPlan) -> Any:
        """Return the rows that a student learns from: those with a label where nothing else teaches."""
        return data.labelled() if plan.name == NO_DISTILLATION else data.split.train

    def _total(self, rows: Mapping[str, Any], args: TrainingArguments) -> int:
        if args.max_steps > 0:
            return args.max_steps
        lengths = [epoch_length(own, args, self.datasets[name].group_size) for name, own in rows.items()]
        return math.ceil(args.num_train_epochs * sum(math.ceil(length / rows_per_step(args)) for length in lengths))
