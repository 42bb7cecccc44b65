"""Teacher and student side by side: both run on a batch, watched, and the objective says what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.data.augmentation.mixup import EmbeddingMixer
from distil_nlp.errors import UserError
from distil_nlp.losses.input_gradients import detach_signals, double_backward_attention, gradient_at_embeddings
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import PROJECTIONS, Recorder
from distil_nlp.signals.types import Signals, forward_arguments, forward_with_signals
from distil_nlp.teachers.cache import CacheConfig, CachedSignals, TeacherCache, open_or_build_cache


class TeacherStudent:
    """A student and its teacher, with hooks that show what an objective needs to see of them.

    Args:
        student: gets the objective's projections, at `PROJECTIONS`.
        teacher: frozen here, and set to eval mode; None if no term needs one.
        objective: bound to both.
        mixes: whether batches may ask for mixed embeddings.

    Attributes:
        recorder: the student's.
        inputs: names of what either model takes.
        cache: the teacher's answers, once they are at hand.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, objective: Objective, mixes: bool = False
    ):
        self.student, self.teacher, self.objective = student, teacher, objective
        self.cache: TeacherCache | None = None
        self._differentiates = objective.request("student").input_gradient
        self._of_student = forward_arguments(student)
        self._of_teacher = forward_arguments(teacher) if teacher is not None else frozenset()
        self.inputs = self._of_student | self._of_teacher
        projections, is_mlm = objective.projections(), objective.kind == "mlm"
        if len(projections):
            student.add_module(PROJECTIONS, projections)
        self.recorder = Recorder(
            student,
            objective.request("student"),
            head_rows=is_mlm,
            projections=objective.projection_sources(),
        )
        self._hooks: list[Recorder | EmbeddingMixer] = [self.recorder]
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            self._asking = Recorder(teacher, objective.request("teacher"), head_rows=is_mlm, projects=False)
            self._hooks.append(self._asking)
        if mixes:
            self._hooks += [EmbeddingMixer(one) for one in (student, teacher) if one is not None]

    def remove_hooks(self) -> None:
        """Takes every hook off both models, and the projections off the student."""
        for hooks in self._hooks:
            hooks.remove()
        if hasattr(self.student, PROJECTIONS):
            delattr(self.student, PROJECTIONS)

    def compute(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        progress: float,
        factors: Tensor,
        further: Sequence[OutputTerm] = (),
    ) -> tuple[Tensor, Tensor, Signals]:
        """(Σ factor · sum, the terms' sums and those of `further`, what was seen of the student).

        Args:
            model: the student, in whatever wraps it.
            batch: of a `RowCollator`.
            progress: where schedules stand, from 0 to 1.
            factors: see `Objective.row_weights`.
        """
        teacher = self.ask(batch)
        with ExitStack() as stack:
            if self._differentiates:
                stack.enter_context(self._differentiating(self.recorder, batch, again=True))
            if "chunks" in batch:
                measure = self.objective.vocabulary_loss(teacher, batch, progress, factors, further)
                stack.enter_context(self.recorder.measuring(measure))
            shown = self.objective.teacher_states(teacher)
            student = forward_with_signals(model, _only(batch, self._of_student), batch["rows"], shown)
        return *self.objective.loss(student, teacher, batch, progress, factors), student

    def ask(self, batch: dict[str, Any]) -> Signals:
        """What the teacher says of a batch, without a graph; nothing if there is none."""
        if "answers" in batch:
            return self.cache.signals(batch["answers"], batch.get("attention_mask"))
        if self.teacher is None:
            return Signals()
        inputs = _only(batch, self._of_teacher)
        if not self._differentiates:
            with torch.no_grad():
                return forward_with_signals(self.teacher, inputs, batch["rows"])
        with self._differentiating(self._asking, batch, again=False):
            return detach_signals(forward_with_signals(self.teacher, inputs, batch["rows"]))

    @contextmanager
    def _differentiating(self, recorder: Recorder, batch: dict[str, Any], again: bool) -> Iterator[None]:
        own = gradient_at_embeddings(batch, self.objective.kind, again)
        with double_backward_attention(), recorder.differentiating(own):
            yield

    def ask_ahead(self, rows: Any, collator: Callable, cache: CacheConfig, **how: Any) -> None:
        """Finds the teacher's answers about all rows on disk, or asks for them; the collator hands them on from then.

        Args:
            rows: of training. collator: a `RowCollator`. cache: where answers are kept.
            how: `device`, `batch_size` and `workers` of the asking.

        Raises:
            UserError: if the rows cannot be found again, or a term needs more than is kept.
        """
        if not hasattr(rows, "__len__"):
            raise UserError(
                "teacher.cache: expected training rows with a length / got a stream / its rows cannot be found again / "
                "set data.streaming=false, or leave teacher.cache out"
            )
        request, kind = self.objective.request("teacher"), self.objective.kind
        contents = CachedSignals.of(request, kind, cache.dtype, cache.top_k, self._temperature())
        self.teacher.to(how["device"])
        self.cache = open_or_build_cache(self.teacher, rows, collator, contents, cache, **how)
        collator.answers = self.cache.answers

    def _temperature(self) -> float:
        """That of the soft targets, the only term that can do with the likeliest words of a vocabulary."""
        outputs = [term for term in self.objective.terms if isinstance(term, OutputTerm) and term.needs_teacher]
        whole = [term.name for term in outputs if self.objective.kind == "mlm" and not term.accepts_top_logits]
        if whole:
            raise UserError(
                f"teacher.cache: expected plain soft_target_kl alone of the terms on a teacher's vocabulary / got "
                f"{', '.join(whole)} / the likeliest words are kept, and these need all / leave teacher.cache out"
            )
        soft = [term.temperature for term in self.objective.terms if isinstance(term, SoftTargetKL)]
        if soft and soft[0].changes and self.objective.kind == "mlm":
            raise UserError(
                "teacher.cache: expected a constant temperature of soft_target_kl / got one that changes / the mass of "
                "the words that are not kept would be that of another temperature / drop its schedule, or leave "
                "teacher.cache out"
            )
        return soft[0].start if soft else 1.0


def _only(batch: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name in names}
