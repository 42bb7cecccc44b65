"""`TeacherSource`: the origin of the teacher's signals.

A source other than a frozen model (a moving average, peers, a file of outputs) is a further subclass in this package.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.data.augmentation.mixup import EmbeddingMixer
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import OWN, batch_of, columns_of, rows_of
from distil_nlp.data.row_sets import RowCollator, present_tokens
from distil_nlp.errors import UserError
from distil_nlp.losses.input_gradients import detach_signals, double_backward_attention, gradient_at_embeddings
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.objective import ModelShape, OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, Signals, forward_arguments, forward_with_signals
from distil_nlp.teachers.alignment import aligned_signals, request_of_all_tokens, validate_alignment
from distil_nlp.teachers.cache import CacheConfig, CachedSignals, TeacherCache, open_or_build_cache
from distil_nlp.teachers.common_words import CommonWords

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


class TeacherSource:
    """Provides the signals of a teacher for a batch; this base class has none, for objectives without a teacher.

    Attributes:
        model: the teacher; None if there is none, or it is not available.
        inputs: columns of a batch that it reads.
        cached_epochs: number of epochs whose draws are cached; None if it accepts any batch.
        reads_row_numbers: True if batches of training must say which rows they hold.
        has_gaps: True if it may have no answer to a row; terms on outputs then leave out those rows.
    """

    model: PreTrainedModel | None = None
    inputs: frozenset[str] = frozenset()
    cached_epochs: int | None = None
    reads_row_numbers: bool = False
    has_gaps: bool = False

    @property
    def models(self) -> list[PreTrainedModel]:
        """All models that may run where the source is asked."""
        return [] if self.model is None else ensemble_members(self.model)

    @property
    def encodings(self) -> list[str]:
        """The encoding that each of the models reads."""
        return [OWN] * len(self.models)

    @property
    def shape(self) -> ModelShape | None:
        """The sizes of the model, for terms that pair layers; None without a model."""
        return None if self.model is None else ModelShape.of(self.model.config)

    def attach(self, objective: Objective, mixes: bool = False) -> None:
        """Prepare to capture the signals that a bound objective requests.

        Args:
            mixes: True if batches may hold mixup partners.
        """

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Prepare for the training rows; called once, before the first row is read.

        Args:
            rows: all training rows.
            collator: the collator of training.
            options: `device`, `batch_size` and `workers` of a pass over the rows; `keep_model`, True if the model is
                needed on the device afterwards; `is_told_to_stop`, a function that says whether to end the pass early.
        """

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return the teacher's signals for a batch, without a graph."""
        return Signals()

    def observe(self, batch: dict[str, Any], student: Signals) -> None:
        """Look at the student's signals for a batch of training, after the source gave its own."""

    def to(self, device: torch.device | str) -> None:
        """Move the model to a device."""
        if self.model is not None:
            self.model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` without its types

    def remove_hooks(self) -> None:
        """Take every hook off the model."""

    def for_trainer(self) -> TeacherSource:
        """Return the source for one trainer: itself, or a copy where another trainer has attached it."""
        return self


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
            found.vocabulary = CommonWords(found.vocabulary, *map(torch.from_numpy, self.vocabulary.merged))
        return aligned_signals(found, self._wanted, batch, self.objective.kind)

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


class CachedTeacher(FrozenTeacher):
    """A model whose outputs for the training rows are cached on disk; it runs on evaluation rows only.

    Args:
        model: see `FrozenTeacher`.
        config: settings of the cache.
        encoding: see `FrozenTeacher`.
    """

    def __init__(self, model: PreTrainedModel, config: CacheConfig, encoding: str = OWN):
        super().__init__(model, encoding)
        self.config = config
        self.cache: TeacherCache | None = None

    def _require_vocabulary(self) -> None:
        """Raise UserError: the teacher's masks are those of the student's tokens, which its own rows do not tell."""
        raise UserError(
            "teacher.cache",
            "none where words of two vocabularies are predicted",
            "some",
            why="a teacher's likeliest words are cached, and not all of them are the student's",
            fix="leave teacher.cache out",
        )

    def for_trainer(self) -> TeacherSource:
        """Return the source for one trainer; a copy opens the cache for the collator of its own trainer."""
        source = super().for_trainer()
        if isinstance(source, CachedTeacher) and source is not self:
            source.cache = source.cached_epochs = None
        return source

    def prepare(self, rows: Any, collator: RowCollator, *, keep_model: bool = True, **options: Any) -> None:
        """Open the cache of the teacher's outputs for all rows, or build it; the collator then reads from it.

        Raises:
            UserError: if the rows are a stream, or a term needs more than the cached signals.
        """
        if self.cache is not None:
            return
        if not hasattr(rows, "__len__"):
            raise UserError(
                "teacher.cache",
                "training rows with a length",
                "a stream",
                why="its rows have no numbers to look outputs up by",
                fix="set data.streaming=false, or leave teacher.cache out",
            )
        contents = CachedSignals.of(
            self.request,
            self.objective.kind,
            self.config.dtype,
            self.config.top_k,
            cached_temperature(self.objective),
        )
        self.to(options["device"])
        read = (rows, collator) if self.encoding == OWN else (rows_of(rows, self.encoding), collator.of(self.encoding))
        self.cache = open_or_build_cache(self.model, *read, contents, self.config, self._recorder, **options)
        self.cached_epochs = self.cache.layout.epochs
        collator.lookup_outputs = self.lookup
        if not keep_model:
            self.to("cpu")

    @property
    def lookup(self) -> Callable[..., dict[str, Tensor]]:
        """The function that looks up the cached fields of a batch; arguments as for `TeacherCache.lookup`."""
        assert self.cache is not None
        return self.cache.lookup if self.encoding == OWN else partial(_look_up, self.cache, self.encoding)

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return cached signals; run the model on batches without cached outputs."""
        if self.cache is not None and "cached_outputs" in batch:
            own = batch_of(batch, self.encoding)
            return self._aligned(self.cache.signals(own["cached_outputs"], own.get("attention_mask")), batch)
        return super().signals(batch)


def _look_up(
    cache: TeacherCache,
    encoding: str,
    numbers: Sequence[int],
    epochs: Sequence[int],
    batch: Mapping[str, Any],
    present: Any,
) -> dict[str, Tensor]:
    """Return the cached fields of a batch, by the tokens of an encoding instead of the student's."""
    own = batch_of(batch, encoding)
    return cache.lookup(numbers, epochs, own, present_tokens(own))


@contextmanager
def differentiating(recorder: Recorder, batch: dict[str, Any], objective: Objective, again: bool) -> Iterator[None]:
    """Within this context, a forward also captures the gradient of the model's own loss at its embeddings.

    Args:
        again: True to keep the graph, so that a loss on the gradient can be differentiated.
    """
    gradient = gradient_at_embeddings(batch, objective.kind, again)
    with double_backward_attention(), recorder.differentiating(gradient):
        yield


def cached_temperature(objective: Objective) -> float:
    """Return the temperature of `soft_target_kl`, the only term that accepts the top-k words of a vocabulary.

    Raises:
        UserError: if another term needs all words, or the temperature is scheduled.
    """
    words = objective.kind.predicts_words
    outputs = [term for term in objective.terms if isinstance(term, OutputTerm) and term.needs_teacher]
    others = [term.name for term in outputs if words and not term.accepts_top_logits]
    if others:
        raise UserError(
            "teacher.cache",
            "plain soft_target_kl alone of the terms on a teacher's vocabulary",
            ", ".join(others),
            why="only the likeliest words are cached, and these terms need all",
            fix="leave teacher.cache out",
        )
    soft = [term.temperature for term in objective.terms if isinstance(term, SoftTargetKL)]
    if soft and soft[0].changes and words:
        raise UserError(
            "teacher.cache",
            "a constant temperature of soft_target_kl",
            "one that changes",
            why="the tail probability of all other words would be that of another temperature",
            fix="drop its schedule, or leave teacher.cache out",
        )
    return soft[0].start if soft else 1.0
