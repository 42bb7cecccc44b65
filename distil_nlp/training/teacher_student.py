"""Teacher and student on one batch: both run, their signals are captured, and the objective computes the loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.data.augmentation.mixup import EmbeddingMixer
from distil_nlp.objective import OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import PROJECTIONS, Recorder
from distil_nlp.signals.types import Signals, forward_arguments, forward_with_signals
from distil_nlp.teachers.source import TeacherSource, differentiating


class TeacherStudent:
    """A student and the source of its teacher's signals, with hooks that capture the signals of an objective.

    Args:
        student: gets the objective's projections, at `PROJECTIONS`.
        source: where the teacher's signals come from; attached here.
        objective: bound to both.
        mixes: whether batches may have mixed embeddings.

    Attributes:
        recorder: the student's.
        inputs: names of the columns that either model takes.
    """

    def __init__(self, student: PreTrainedModel, source: TeacherSource, objective: Objective, mixes: bool = False):
        self.student, self.source, self.objective = student, source, objective
        self._differentiates = objective.request("student").input_gradient
        self.inputs = forward_arguments(student) | source.inputs
        projections = objective.projections()
        if len(projections):
            student.add_module(PROJECTIONS, projections)
        self.recorder = Recorder(
            student,
            objective.request("student"),
            head_rows=objective.kind.level == "token",
            projections=objective.projection_sources(),
        )
        source.attach(objective, mixes)
        self._hooks = [self.recorder, *([EmbeddingMixer(student)] if mixes else [])]

    def remove_hooks(self) -> None:
        """Take every hook off both models, and the projections off the student."""
        for hooks in self._hooks:
            hooks.remove()
        self.source.remove_hooks()
        if hasattr(self.student, PROJECTIONS):
            delattr(self.student, PROJECTIONS)

    def compute(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        progress: float,
        factors: Tensor,
        extra_terms: Sequence[OutputTerm] = (),
    ) -> tuple[Tensor, Tensor, Signals]:
        """Return (Σ factor · sum, the terms' sums and those of `extra_terms`, the student's signals).

        Args:
            model: the student, in whatever wraps it.
            batch: of a `RowCollator`.
            progress: fraction of training done, for schedules.
            factors: see `Objective.row_weights`.
            extra_terms: terms that are summed too, and have no weight.
        """
        teacher = self.source.signals(batch)
        with ExitStack() as stack:
            if self._differentiates:
                stack.enter_context(differentiating(self.recorder, batch, self.objective, again=True))
            if "chunks" in batch:
                loss = self.objective.vocabulary_loss(teacher, batch, progress, factors, extra_terms)
                stack.enter_context(self.recorder.measuring(loss))
            states = self.objective.teacher_states(teacher)
            student = forward_with_signals(model, batch, batch["rows"], states)
        return *self.objective.loss(student, teacher, batch, progress, factors), student
