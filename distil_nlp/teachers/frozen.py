"""`FrozenTeacher`: a model in eval mode, without gradients, that runs on each batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.data.augmentation.mixup import EmbeddingMixer
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import OWN, batch_of, columns_of
from distil_nlp.data.row_sets import RowCollator
from distil_nlp.errors import UserError
from distil_nlp.losses.input_gradients import detach_signals, double_backward_attention, gradient_at_embeddings
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, Signals, forward_arguments, forward_with_signals
from distil_nlp.teachers.alignment import aligned_signals, request_of_all_tokens, validate_alignment
from distil_nlp.teachers.common_words import CommonWords
from distil_nlp.teachers.source import TeacherSource

_FROZEN = "_distil_nlp_frozen"
"""The attribute of a frozen model: who froze it, and its parameters and modules that were in training."""


class Freeze:
    """Freezes a model and puts it into eval mode.

    `remove` gives back what was trainable and in train mode, once nobody else has frozen the model.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        modes = [parameter for parameter in model.parameters() if parameter.requires_grad]
        training = [module for module in model.modules() if module.training]
        users, *_ = model.__dict__.setdefault(_FROZEN, ([], modes, training))
        users.append(self)
        model.requires_grad_(False).eval()

    def remove(self) -> None:
        """Give the model its mode back."""
        users, trainable, training = self._model.__dict__[_FROZEN]
        users.remove(self)
        if users:
            return
        del self._model.__dict__[_FROZEN]
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


class FrozenTeacher(TeacherSource):
    """A model in eval mode that runs on each batch.

    Args:
        model: a `PreTrainedModel` or an `Ensemble`; it is frozen by `attach`.
        encoding: the tokens that it reads, where they are not the student's; see `distil_nlp.data.encodings`.
        vocabulary: the words that it has in common with the student, where words of two vocabularies are predicted.
    """

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel, encoding: str = OWN, vocabulary: CommonVocabulary | None = None):
        self.model, self.encoding, self.vocabulary = model, encoding, vocabulary
        self.inputs = columns_of(forward_arguments(model), encoding)
        self._hooks: list[Recorder | EmbeddingMixer | Freeze] = []
        self._merged: tuple[Tensor, ...] = ()

    def attach(self, objective: Objective, mixes: bool = False, request: SignalRequest | None = None) -> None:
        """Freeze the model and put hooks on it.

        Args:
            request: the signals to capture; by default all that the objective needs.

        Raises:
            UserError: for terms that compare tokens, where the teacher reads others than the student.
        """
        self.objective, self.request = objective, request or objective.request("teacher")
        self._wanted = self.request
        if self.encoding != OWN:
            validate_alignment(objective, self.request)
            if self.request.logits and objective.kind.predicts_words:
                self._require_vocabulary()
            self.request = request_of_all_tokens(self._wanted)
        on_tokens = objective.kind.level == "token"
        projects = not objective.kind.predicts_words
        self._recorder = Recorder(self.model, self.request, head_rows=on_tokens, projects=projects)
        self._hooks = [Freeze(self.model), self._recorder, *([EmbeddingMixer(self.model)] if mixes else [])]

    def _require_vocabulary(self) -> None:
        """Raise UserError unless it is known which words are those of the student's."""
        if self.vocabulary is None:
            raise UserError(
                None,
                "the words that teacher and student have in common, where the teacher reads other tokens",
                "none",
                why="a distribution over the words of the one is none over those of the other",
                fix="pass FrozenTeacher(model, 'teacher_', CommonVocabulary.of(student_tokenizer, teacher_tokenizer))",
            )

    @property
    def encodings(self) -> list[str]:
        return [self.encoding] * len(self.models)

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Move the model to the device, from which another trainer may have taken it."""
        self.to(options["device"])

    def for_trainer(self) -> TeacherSource:
        """Return the source for one trainer: itself, or a copy where another trainer has attached it."""
        if not self._hooks:
            return self
        source = copy.copy(self)
        source._hooks = []
        return source

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Run the model; what it says of tokens of its own is told of the student's."""
        return self._aligned(self._run(dict(batch_of(batch, self.encoding))), batch)

    def _aligned(self, found: Signals, batch: dict[str, Any]) -> Signals:
        if self.encoding == OWN:
            return found
        if found.vocabulary is not None and self.vocabulary is not None:
            found.vocabulary = CommonWords(found.vocabulary, *self._merged_on(batch["input_ids"].device))
        return aligned_signals(found, self._wanted, batch, self.objective.kind)

    def _merged_on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Return the tables of common words on a device, copied there once: each copy would make it wait."""
        if not self._merged or self._merged[0].device != device:
            assert self.vocabulary is not None
            self._merged = tuple(torch.from_numpy(table).to(device) for table in self.vocabulary.merged)
        return self._merged

    def _run(self, batch: dict[str, Any]) -> Signals:
        """Return the signals of the tokens that the model reads."""
        if not self.objective.request("student").input_gradient:
            with torch.no_grad():
                return self._forward(batch)
        with differentiating(self._recorder, batch, self.objective, again=False):
            return detach_signals(self._forward(batch))

    def _forward(self, batch: dict[str, Any]) -> Signals:
        return forward_with_signals(self.model, batch, batch["rows"], recorder=self._recorder)

    def remove_hooks(self) -> None:
        """Take every hook off the model, and give it back its mode."""
        for hooks in self._hooks:
            hooks.remove()
        self._hooks = []


@contextmanager
def differentiating(recorder: Recorder, batch: dict[str, Any], objective: Objective, again: bool) -> Iterator[None]:
    """Within this context, a forward also captures the gradient of the model's own loss at its embeddings.

    Args:
        again: True to keep the graph, so that a loss on the gradient can be differentiated.
    """
    gradient = gradient_at_embeddings(batch, objective.kind, again)
    with double_backward_attention(), recorder.differentiating(gradient):
        yield
