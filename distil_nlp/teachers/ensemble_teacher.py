"""`EnsembleTeacher`: several sources of teacher signals as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from distil_nlp.data.encodings import columns_of
from distil_nlp.data.row_sets import ANSWERS, RowCollator, logit_labels
from distil_nlp.errors import UserError
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import SignalRequest, Signals, forward_arguments
from distil_nlp.teachers.alignment import validate_alignment
from distil_nlp.teachers.answers import answers_in, require_answers, validate_answered_kind
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cached import CachedTeacher
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.mixing import MixedVocabulary, Mixing
from distil_nlp.teachers.source import TeacherSource


class EnsembleTeacher(TeacherSource):
    """Several teachers, each asked for itself: mixed logits, and the layers of the first.

    Where outputs are cached, each teacher has a cache of its own, known by that teacher alone: other weights, mixes and
    subsets of the same teachers read the same caches. The teachers run as one model, with one cache, where a vocabulary
    is cached (of each teacher only its likeliest words are there, which are not those of another), and for terms that
    differentiate the teacher's own loss.

    Where the mixing has answers, the last teacher is the column of answers in the rows (`AnswersTeacher`); in a row
    without an answer the models alone count.

    Args:
        model: the teachers, how they are mixed, and the tokens that each of them reads.
        caches: settings of each one's cache; None to ask the models.
    """

    model: Ensemble  # type: ignore[assignment]  # used as a model

    def __init__(self, model: Ensemble, caches: Sequence[CacheConfig] | None = None):
        self.model, self.caches = model, caches
        pairs = zip(model.members, model.encodings, strict=True)
        self.inputs = frozenset().union(*(columns_of(forward_arguments(one), encoding) for one, encoding in pairs))
        self.inputs |= {ANSWERS} if model.mixing.has_answers else frozenset()
        self._mixing = model.mixing
        self._sources: dict[int, FrozenTeacher] = {}

    @property
    def encodings(self) -> list[str]:
        return list(self.model.encodings)

    def for_trainer(self) -> TeacherSource:
        """Return the source for one trainer: itself, or a new one where another trainer has attached it."""
        return EnsembleTeacher(self.model, self.caches) if self._sources else self

    def attach(self, objective: Objective, mixes: bool = False) -> None:
        """Freeze the teachers that are asked, and put hooks on them.

        Raises:
            UserError: see `validate_mixing`.
        """
        validate_mixing(self.model.mixing, objective, is_cached=self.caches is not None)
        request = objective.request("teacher")
        self._objective, self._gives_logits = objective, request.logits
        runs_as_one = _runs_as_one(objective, self.caches is not None)
        if runs_as_one and any(self.model.encodings):
            validate_alignment(objective, request)
        self._mixing = Mixing((1.0,)) if runs_as_one else self.model.mixing
        requests = {0: request} if runs_as_one else _requests(self._mixing, request)
        try:
            for number, own in requests.items():
                source = self._source(self.model if runs_as_one else self.model.members[number], number)
                source.attach(objective, mixes, own)
                self._sources[number] = source
        except Exception:
            self.remove_hooks()
            raise

    def _source(self, model: Any, number: int) -> FrozenTeacher:
        encoding = self.model.encodings[number]
        if self.caches is None:
            return FrozenTeacher(model, encoding)
        return CachedTeacher(model, self.caches[number], encoding)

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Prepare each teacher, one after another; the collator then reads from all their caches."""
        if self._mixing.has_answers and hasattr(rows, "__len__"):
            require_answers(rows)
        for source in self._sources.values():
            columns = collator.columns - (self.inputs - source.inputs)  # as if it were the only teacher
            source.prepare(rows, replace(collator, columns=columns, lookup_outputs=None), **options)
        cached = [source for source in self._sources.values() if isinstance(source, CachedTeacher)]
        if cached:
            collator.lookup_outputs = partial(_look_all_up, [source.lookup for source in cached])
            self.cached_epochs = max(source.cached_epochs or 1 for source in cached)

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return the mixed logits, and the other signals of the first teacher."""
        found = self._signals_of_each(batch)
        first = found.get(0, Signals())
        if not self._gives_logits:
            return first
        is_cached = "cached_outputs" in batch and self._objective.kind.level == "sequence"
        rows = batch["rows"]["sequences"] if is_cached else None  # fillers are in no cache
        if self._mixing.has_answers:
            answers = answers_in(batch, int(self.model.config.num_labels or 1))
            found[self._mixing.models[-1] + 1] = Signals(logits=answers if rows is None else answers[rows])
        mixing, members = self._mixing.of(self._mixing.active), [found[number] for number in self._mixing.active]
        if len(members) == 1:
            return replace(first, logits=members[0].logits, vocabulary=members[0].vocabulary)
        labels = logit_labels(batch, self._objective.kind)
        if self._objective.kind.predicts_words:
            return replace(first, vocabulary=MixedVocabulary(mixing, tuple(one.vocabulary for one in members), labels))
        return replace(first, logits=mixing.outputs([one.logits for one in members], labels, rows))

    def _signals_of_each(self, batch: dict[str, Any]) -> dict[int, Signals]:
        """Return the signals of each teacher that is asked, by its number."""
        if "cached_outputs" not in batch:
            return {number: source.signals(batch) for number, source in self._sources.items()}
        own = zip(self._sources.items(), batch["cached_outputs"], strict=True)
        return {number: source.signals({**batch, "cached_outputs": fields}) for (number, source), fields in own}

    def remove_hooks(self) -> None:
        """Take every hook off the teachers, and give them back their modes."""
        for source in self._sources.values():
            source.remove_hooks()
        self._sources = {}


def _requests(mixing: Mixing, request: SignalRequest) -> dict[int, SignalRequest]:
    """Return the signals that are captured of each teacher that is asked: of all but the first, the logits alone."""
    active = [number for number in mixing.models if mixing.weights[number]] if request.logits else []
    first = {0: replace(request, logits=0 in active)} if 0 in active or request.has_layers else {}
    return first | {number: SignalRequest(logits=True) for number in active if number}


def _look_all_up(lookups: Sequence[Callable[..., dict[str, Tensor]]], *arguments: Any) -> list[dict[str, Tensor]]:
    """Return the cached fields of a batch, of each teacher; arguments as for `TeacherCache.lookup`."""
    return [lookup(*arguments) for lookup in lookups]


def _runs_as_one(objective: Objective, is_cached: bool) -> bool:
    """Return whether the teachers run as one model."""
    return (is_cached and objective.kind.predicts_words) or _differentiates(objective)


def _differentiates(objective: Objective) -> bool:
    return any(isinstance(term, InputGradient) for term in objective.terms)


def validate_mixing(mixing: Mixing, objective: Objective, is_cached: bool) -> None:
    """Raise UserError for a way of mixing that the task, a term or the cache rules out.

    Args:
        objective: its kind and its terms; need not be bound.
        is_cached: whether the teachers' outputs for the training rows are cached.
    """
    if mixing.has_answers:
        _validate_answers(mixing, objective)
    if mixing.is_constant:
        return
    key = "teacher.mix" if mixing.weighting == "fixed" else "teacher.weighting"
    got = mixing.mix if mixing.weighting == "fixed" else mixing.weighting
    if objective.kind.output != "distribution":
        raise UserError(
            key,
            f"mix=logits and weighting=fixed for {objective.kind.title}",
            got,
            why="both are of one distribution over classes, which a teacher's output is not here",
            fix="leave them out; teacher.weight and the weights in teacher.ensemble apply",
        )
    if is_cached and objective.kind.predicts_words:
        raise UserError(
            key,
            "mix=logits and weighting=fixed where a vocabulary is cached",
            got,
            why="of each teacher only its likeliest words would be there, which are not those of another",
            fix="leave teacher.cache out, or mix fixed logits",
        )
    if objective.passes > 1:
        raise UserError(
            key,
            "mix=logits and weighting=fixed with objective.r_drop",
            got,
            why="the teachers would be mixed anew for each of the two passes",
            fix="leave one of the two out",
        )
    if objective.samples_text:
        raise UserError(
            key,
            "mix=logits and weighting=fixed with objective.replaced_tokens",
            got,
            why="words are drawn before the student has logits, by which teachers may be mixed",
            fix="leave one of the two out",
        )
    if _differentiates(objective):
        raise UserError(
            key,
            "mix=logits and weighting=fixed with objective.input_gradient",
            got,
            why="the term differentiates the loss of one output, the mean",
            fix="leave one of the two out",
        )
    confident = [term.name for term in objective.terms if getattr(term, "by_confidence", False)]
    if confident and mixing.mix == "probabilities":
        raise UserError(
            f"objective.{confident[0]}.by_confidence",
            "false with teacher.mix=probabilities",
            "true",
            why="the softened mean, which the term reads, does not tell how sure the unsoftened one is",
            fix="leave one of the two out",
        )


def _validate_answers(mixing: Mixing, objective: Objective) -> None:
    """Raise UserError for answers that cannot be one of the teachers."""
    validate_answered_kind(objective.kind, "teacher.ensemble")
    if not any(mixing.weights[number] for number in mixing.models):
        raise UserError(
            "teacher.weight",
            "a model with a weight above 0 beside the answers",
            "0 for all of them",
            why="rows without an answer would have no teacher",
            fix="raise a weight, or name the columns in teacher.columns, and no ensemble",
        )
    if mixing.weighting != "fixed":
        raise UserError(
            "teacher.weighting",
            "fixed with answers in teacher.ensemble",
            mixing.weighting,
            why="how sure answers are is not comparable with how sure a model is",
            fix="leave it out; teacher.weight and the weights in teacher.ensemble apply",
        )
    if _differentiates(objective):
        raise UserError(
            "objective.input_gradient",
            "none with answers in teacher.ensemble",
            "some",
            why="answers do not depend on the embeddings that it differentiates by",
            fix="leave one of the two out",
        )
