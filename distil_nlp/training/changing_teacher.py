"""A callback by which a `ChangingTeacher` follows training, and is kept in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distil_nlp.errors import UserError
from distil_nlp.teachers.changing import ChangingTeacher

TEACHER_STATE = "teacher.safetensors"
"""File of a checkpoint with the state of a teacher that changes during training."""


class ChangingTeacherCallback(TrainerCallback):
    """Calls a `ChangingTeacher` at the steps and epochs of a trainer.

    It comes before the callbacks that mark checkpoints as complete, and that do an evaluation anew after a resume.
    """

    def __init__(self, trainer: Any, teacher: ChangingTeacher):
        self.trainer, self.teacher = trainer, teacher

    @property
    def _student(self) -> torch.nn.Module:
        return self.trainer.teacher_student.student

    def load(self, checkpoint: str) -> None:
        """Take the state in a checkpoint.

        Raises:
            UserError: if there is none.
        """
        file = Path(checkpoint) / TEACHER_STATE
        if file.is_file():
            self.teacher.load_state(load_file(file, device=str(self.trainer.args.device)))
        elif self.teacher.state():
            raise UserError(
                str(checkpoint),
                f"{TEACHER_STATE}, the state of a teacher that changes during training",
                "a checkpoint without it",
                why="training would go on with another teacher",
                fix="start anew (run.overwrite=true)",
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self.teacher.start(self._student)
        self.teacher.begin_step(max(state.global_step - 1, 0), state.max_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.teacher.begin_epoch(int(state.epoch or 0), state.num_train_epochs)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.teacher.begin_step(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.teacher.end_step(state.global_step, self._student)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.teacher.exchange(self._total)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.teacher.exchange(self._total)
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        kept = {name: value.contiguous().cpu() for name, value in self.teacher.state().items()}
        if kept and args.should_save and folder.is_dir():
            save_file(kept, folder / TEACHER_STATE)

    def _total(self, value: Tensor) -> Tensor:
        return self.trainer.accelerator.reduce(value, "sum")
