"""Saving and resuming of `DistillationTrainer`: the plain student, and checkpoints that training goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from distil_nlp.training.preemption import EvaluationStopped
from distil_nlp.training.sharding import Sharding

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import Trainer as _Trainer

    from distil_nlp.training.changing_teacher import ChangingTeacherCallback
    from distil_nlp.training.extension import RunningExtensions
    from distil_nlp.training.preemption import PreemptionCallback
    from distil_nlp.training.teacher_student import TeacherStudent
else:
    _Trainer = object  # a mixin, of a trainer for a type checker alone


class StudentSaving(_Trainer):
    """A mixin for `transformers.Trainer` whose checkpoints hold what extensions and a changing teacher need to resume.

    It reads `teacher_student`, `extensions`, `raise_if_broken`, `raise_if_not_finite`, `_changing_teacher` and
    `_preemption` of the trainer.
    """

    teacher_student: TeacherStudent
    extensions: RunningExtensions
    raise_if_broken: Callable[[], None]
    raise_if_not_finite: Callable[[], None]
    _changing_teacher: ChangingTeacherCallback | None
    _preemption: PreemptionCallback
    _is_saving_checkpoint = False

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the plain model; a checkpoint also has the projections that only training needs."""
        if self._is_saving_checkpoint or Sharding.of(self.args):
            super().save_model(output_dir, _internal_call)
            return
        with self.teacher_student.without_projections():
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint unless the student is broken; one that is would push out good ones (`save_total_limit`)."""
        self.raise_if_broken()
        self._is_saving_checkpoint = True
        try:
            super()._save_checkpoint(*args, **kwargs)
            for one in self.extensions if self.args.should_save else ():
                one.save(self._checkpoint_folder())
        finally:
            self._is_saving_checkpoint = False

    def save_checkpoint(self) -> None:
        """Save a checkpoint of the step that training is at; its control says whether an evaluation is due."""
        self.raise_if_not_finite()
        self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def evaluate_again(self) -> None:
        """Do the evaluation of the step that training resumes from, with all that depends on it."""
        is_best = self._determine_best_metric(self._evaluate(None, None), None)
        if is_best and self.args.save_strategy != SaveStrategy.NO:
            self.state.best_model_checkpoint = str(self._checkpoint_folder())

    def _checkpoint_folder(self) -> Path:
        """Return the folder of the checkpoint of this step."""
        return Path(str(self.args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Resume the optimiser and, where it changes during training, the teacher."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self._changing_teacher is not None:
            self._changing_teacher.load(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        for one in self.extensions:
            one.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        for one in self.extensions:
            one.load(Path(str(self.state.best_model_checkpoint)))

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether this checkpoint is the best so far; one with fewer zeros than asked for does not count."""
        if not all(one.is_complete for one in self.extensions):
            return False
        return super()._determine_best_metric(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        is_done = self.state.global_step >= self.state.max_steps  # Trainer would take one more step
        if not is_done and not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except EvaluationStopped:
            self._preemption.save()
