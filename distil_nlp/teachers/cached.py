"""`CachedTeacher`: a model whose outputs for the training rows are cached on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from distil_nlp.data.encodings import OWN, batch_of, rows_of
from distil_nlp.data.row_sets import RowCollator, present_tokens
from distil_nlp.errors import UserError
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import Signals
from distil_nlp.teachers.cache import CacheConfig, CachedSignals, TeacherCache, open_or_build_cache
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.source import TeacherSource


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
