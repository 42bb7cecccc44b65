"""Teacher and student on one batch: both run, their signals are captured, and the objective computes the loss."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.data.augmentation.mixup import EmbeddingMixer
from distil_nlp.kernels.attention import AttentionKernel, using
from distil_nlp.kernels.fallback import Kernels, kernel_for
from distil_nlp.kernels.residual_norm import FusedResidualNorms, ResidualNormKernel
from distil_nlp.kernels.vocabulary import VocabularyKernel
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.objective import OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import PROJECTIONS, Recorder
from distil_nlp.signals.types import RECORDERS, Signals, forward_arguments, forward_with_signals
from distil_nlp.teachers.frozen import differentiating
from distil_nlp.teachers.source import TeacherSource
from distil_nlp.training.compile import restore_blocks
from distil_nlp.training.passes import doubled_batch, doubled_signals
from distil_nlp.training.sampled_text import of_own_text, with_sampled_text


class TeacherStudent:
    """A student and the source of its teacher's signals, with hooks that capture the signals of an objective.

    Args:
        student: gets the objective's projections, at `PROJECTIONS`.
        source: where the teacher's signals come from; attached here, and by nobody else.
        objective: bound to both.
        mixes: whether batches may have mixed embeddings.
        further: modules that the student carries too, by name.

    Attributes:
        recorder: the student's.
        remove_hooks: takes every hook off both models, and the projections off the student; once, at the latest when
            this is collected, so that models do not keep the hooks of trainers that are gone.
        inputs: names of the columns that either model takes.
        vocabulary_kernel: of the losses on a vocabulary; None where torch computes them.
        attention_kernel: of the attention maps; likewise.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        source: TeacherSource,
        objective: Objective,
        mixes: bool = False,
        further: Mapping[str, nn.Module] | None = None,
    ):
        self.student, self.source, self.objective = student, source, objective
        request = objective.request("student")
        self._differentiates, self._predicts = request.input_gradient, request.logits
        self.inputs = forward_arguments(student) | source.inputs
        self._kept: list[Signals] | None = None
        self.vocabulary_kernel: VocabularyKernel | None = None
        self.attention_kernel: AttentionKernel | None = None
        self._projections = objective.projections()
        self._projections.update(further or {})
        self.hold_projections()
        self.recorder = Recorder(
            student,
            request,
            head_rows=objective.kind.level == "token",
            projections=objective.projection_sources(),
        )
        try:
            source.attach(objective, mixes)
        except Exception:
            self.recorder.remove()
            raise
        self._hooks: list[Any] = [self.recorder, *([EmbeddingMixer(student)] if mixes else [])]
        self.remove_hooks = weakref.finalize(self, _take_off, student, self._projections, self._hooks, source)
        self.remove_hooks.atexit = False

    def use_kernels(self, kernels: Kernels, device: torch.device, is_compiled: bool) -> None:
        """Let kernels compute the losses that they know, and the residual norms of both models.

        Args:
            kernels: whose.
            device: that the models run on.
            is_compiled: whether their blocks are, so that the compiler fuses what is in them.

        Raises:
            UserError: if Triton is asked for, and is not there.
        """
        self.vocabulary_kernel = kernel_for(VocabularyKernel, kernels, device)
        self.attention_kernel = kernel_for(AttentionKernel, kernels, device)
        norms = kernel_for(ResidualNormKernel, kernels, device)
        if norms is not None and not is_compiled and not self._differentiates:
            self.add_hooks(FusedResidualNorms([self.student, *self.source.models], norms))

    def carried(self, name: str) -> Any:
        """Return a module that the student carries in training; None without one of that name."""
        return dict(self._projections).get(name)

    def add_hooks(self, hooks: Any) -> None:
        """Let `remove_hooks` take off these hooks too, by their own `remove`."""
        self._hooks.append(hooks)

    def hold_projections(self) -> None:
        """Let the student carry the projections of this objective, and not those of another trainer of it."""
        if getattr(self.student, PROJECTIONS, None) is self._projections:
            return
        if hasattr(self.student, PROJECTIONS):
            delattr(self.student, PROJECTIONS)
        if len(self._projections):
            self.student.add_module(PROJECTIONS, self._projections)

    @contextmanager
    def without_projections(self) -> Iterator[None]:
        """Within this context, the student carries no projections."""
        held = getattr(self.student, PROJECTIONS, None)
        if held is not None:
            delattr(self.student, PROJECTIONS)
        try:
            yield
        finally:
            if held is not None:
                self.student.add_module(PROJECTIONS, held)

    @contextmanager
    def asking_once(self) -> Iterator[None]:
        """Within this context, all forwards are of one batch, for which the teacher is asked once."""
        self._kept = []
        try:
            yield
        finally:
            self._kept = None

    def _teacher_signals(self, batch: dict[str, Any]) -> Signals:
        """Return the teacher's signals of a batch, those of before within `asking_once`."""
        kept = [] if self._kept is None else self._kept
        if not kept:
            kept.append(self.source.signals(batch))
        return kept[0]

    @property
    def is_attached(self) -> bool:
        """Whether the hooks are still on the models."""
        return self.remove_hooks.alive

    def compute(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        progress: float,
        factors: Tensor,
        extra_terms: Sequence[OutputTerm] = (),
        passes: int = 1,
    ) -> tuple[Tensor, Tensor, Signals]:
        """Return (Σ factor · sum, the terms' sums and those of `extra_terms`, the student's signals).

        Args:
            model: the student, in whatever wraps it.
            batch: of a `RowCollator`.
            progress: fraction of training done, for schedules.
            factors: see `Objective.row_weights`.
            extra_terms: terms that are summed too, and have no weight.
            passes: 2 for a student that reads each row twice, with other dropout; the teacher reads it once.
        """
        teacher = self._teacher_signals(batch)
        if passes == 2:
            batch, teacher = doubled_batch(batch, self.objective.kind), doubled_signals(teacher)
        read = batch
        if self.objective.samples_text:
            read, batch = with_sampled_text(batch, teacher.vocabulary, self.student.config.vocab_size)
        with ExitStack() as stack:
            if self._differentiates:
                stack.enter_context(differentiating(self.recorder, batch, self.objective, again=True))
            if "chunks" in batch and self._predicts:
                loss = self.objective.vocabulary_loss(
                    teacher, batch, progress, factors, extra_terms, self.vocabulary_kernel
                )
                stack.enter_context(self.recorder.measuring(loss))
            states = self.objective.teacher_states(teacher)
            student = forward_with_signals(model, read, read["rows"], states, self.recorder)
        if read is not batch:
            student = of_own_text(student, len(batch["input_ids"]))
        with using(self.attention_kernel):
            return *self.objective.loss(student, teacher, batch, progress, factors), student


def _take_off(student: PreTrainedModel, projections: nn.Module, hooks: Sequence[Any], source: TeacherSource) -> None:
    """Take every hook off both models, and the projections off the student."""
    for hook in hooks:
        hook.remove()
    source.remove_hooks()
    if getattr(student, PROJECTIONS, None) is projections:
        delattr(student, PROJECTIONS)
    models = [student, *([] if source.model is None else ensemble_members(source.model))]
    for model in models:
        if RECORDERS not in model.__dict__:  # no other trainer uses it
            restore_blocks(model)
