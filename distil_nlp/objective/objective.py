"""The objective: named, weighted terms, each a sum over rows, divided by its number of rows in the whole step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from distil_nlp.data.row_sets import RowSets
from distil_nlp.errors import UserError
from distil_nlp.kernels.vocabulary import WORDS_ALIGNED, VocabularyKernel
from distil_nlp.objective.balancing import LossBalancer
from distil_nlp.objective.chunked_logits import chunked_loss
from distil_nlp.objective.fused_loss import Chunk, FusedChunkLoss, aligned
from distil_nlp.objective.output_terms import OutputTerm
from distil_nlp.objective.term import LossTerm, ModelShape, Role
from distil_nlp.signals.types import LazyLogits, ProjectionInput, SignalRequest, Signals, VocabularyLoss
from distil_nlp.tasks import TaskKind, task_kind


class Objective:
    """Σ_terms weight · (Σ_rows term ÷ rows of the whole optimiser step).

    Args:
        terms: at most one of each name. Terms with a weight of 0 throughout training are dropped, and cost nothing.
        kind: the kind of task: see `distil_nlp.tasks.KINDS`; by default that of the trainer's student.
        balance: adapts the weights of the terms during training; None for fixed weights.
        joint: modules that train together with the student, and whose outputs terms read as `Signals.projected`: name →
            (input, module).

    Raises:
        UserError: if no term with a weight is left, a name occurs twice, or a term does not apply to the kind of task.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        kind: TaskKind | str | None = None,
        balance: LossBalancer | None = None,
        joint: Mapping[str, tuple[ProjectionInput, nn.Module]] | None = None,
    ):
        _check_terms(terms)
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise UserError(
                "objective",
                "each term once",
                str(names),
            )
        self.terms = [term for term in terms if not term.weight.always_zero]
        if not self.terms:
            raise UserError(
                "objective",
                "a term with a weight above 0",
                str(names or "none"),
                why="there would be nothing to learn",
                fix="give one of them a weight",
            )
        for term in self.terms:
            if balance is not None and balance.kind == "uncertainty" and term.why_not_balanced:
                raise UserError(
                    "balance.kind",
                    f"gradient_norm with {term.name}",
                    "uncertainty",
                    why=term.why_not_balanced,
                    fix="use gradient_norm, or leave balance out",
                )
        self._check_passes()
        self._check_sampled_text(joint)
        self.kind: TaskKind = cast(TaskKind, None)  # until `set_kind`; `bind` raises UserError without it
        self.balance, self.joint = balance, dict(joint or {})
        if kind is not None:
            self.set_kind(kind)

    def set_kind(self, kind: TaskKind | str) -> None:
        """Set the kind of task; the trainer does where none was given.

        Raises:
            UserError: if a term is not defined for it.
        """
        self.kind = task_kind(kind)
        for term in self.terms:
            if not term.applies_to(self.kind):
                raise UserError(
                    f"objective.{term.name}",
                    " or ".join(term.kinds()),
                    str(self.kind),
                    why=term.why_not(self.kind),
                    fix="leave it out",
                )

    def _check_passes(self) -> None:
        """Raise UserError for terms that would compare a row with its own copy."""
        comparing = [term.name for term in self.terms if term.compares_samples]
        if self.passes == 2 and comparing:
            twice = next(term.name for term in self.terms if term.compares_passes)
            raise UserError(
                "objective",
                f"{twice} without terms that compare the rows of a batch",
                ", ".join(comparing),
                why="each row is there twice, and would be compared with its own copy",
                fix="leave one of the two out",
            )

    def _check_sampled_text(self, joint: Any) -> None:
        """Raise UserError for what would read a batch of twice the rows as if it were the batch."""
        sampling = [term.name for term in self.terms if term.samples_text]
        if not sampling:
            return
        others = [term.name for term in self.terms if term.compares_passes]
        others += [f"the modules {', '.join(joint)}"] if joint else []
        if others:
            raise UserError(
                "objective",
                f"{sampling[0]} without what makes more of a batch, or trains further modules on it",
                ", ".join(others),
                why="the student reads each row a second time already, with the teacher's words",
                fix="leave one of the two out",
            )

    @property
    def names(self) -> list[str]:
        return [term.name for term in self.terms]

    @property
    def needs_teacher(self) -> bool:
        return any(term.needs_teacher for term in self.terms)

    def bind(self, teacher: ModelShape | None, student: ModelShape) -> None:
        """Bind the terms to the models; called once by the trainer.

        Raises:
            UserError: if a layer does not exist, heads do not match, a term has no teacher, or no kind of task is set.
        """
        if self.kind is None:
            raise UserError("objective", "a kind of task", "none", fix="give it: Objective(terms, kind=…)")
        if teacher is None and self.needs_teacher:
            names = [term.name for term in self.terms if term.needs_teacher]
            raise UserError(
                "objective",
                f"a teacher for {', '.join(names)}",
                "none",
                fix="pass teacher=…",
            )
        for term in self.terms:
            term.bind(self.kind, teacher, student)
        if self.balance is not None:
            self.balance.start(len(self.terms))
        self._projections = self.joint | {k: v for term in self.terms for k, v in term.projections().items()}

    def answered_only(self, is_so: bool) -> None:
        """Let the terms on a teacher's outputs leave out rows to which it has no answer, and not count them.

        Args:
            is_so: False for a teacher that answers every row.
        """
        for term in self.terms:
            if isinstance(term, OutputTerm):
                term.answered_only = is_so

    def aligned_only(self, is_so: bool) -> None:
        """Let the terms on tokens leave out those without partners among the teacher's tokens, and not count them.

        To be called before `bind`.

        Args:
            is_so: False for a teacher that reads the student's tokens.
        """
        for term in self.terms:
            term.aligned_only = is_so

    def request(self, role: Role) -> SignalRequest:
        """Return the signals of a model that the terms need, all together."""
        requests = [term.request(role) for term in self.terms if role == "student" or term.needs_teacher]
        inputs = [source for source, _ in self.joint.values() if role == "student" and source.of == "states"]
        return SignalRequest(
            logits=any(request.logits for request in requests),
            hidden=frozenset().union(*(request.hidden for request in requests)),
            states=frozenset(source.layer for source in inputs),
            attention=frozenset().union(*(request.attention for request in requests)),
            values=frozenset().union(*(request.values for request in requests)),
            scores=frozenset().union(*(request.scores for request in requests)),
            activations=frozenset().union(*(request.activations for request in requests)),
            weights=frozenset().union(*(request.weights for request in requests)),
            input_gradient=any(request.input_gradient for request in requests),
        )

    def projections(self) -> nn.ModuleDict:
        """Return the modules that only training needs; none if all widths agree and weights are fixed."""
        balance = {"balance": self.balance} if self.balance is not None else {}
        return nn.ModuleDict({name: module for name, (_, module) in self._projections.items()} | balance)

    def projection_sources(self) -> dict[str, ProjectionInput]:
        """Return the inputs of the projections, by the projections' names."""
        return {name: source for name, (source, _) in self._projections.items()}

    def teacher_states(self, teacher: Signals) -> dict[str, Tensor]:
        """Return the teacher's states that are second inputs of projections, by the projections' names."""
        sources = self.projection_sources().items()
        return {name: teacher.hidden[source.teacher].detach() for name, source in sources if source.teacher is not None}

    def row_sets(self, chunk: int | None = None) -> RowSets:
        """Return the row sets that a collator draws for this objective.

        Args:
            chunk: rows whose vocabulary logits are computed at a time; None for all at once.
        """
        output = {term.signal_rows() for term in self.terms if isinstance(term, OutputTerm)}
        if output and self.kind.level == "token" and self.kind.has_labels:
            output.add(self.kind.label_rows)  # evaluation scores these, whatever rows the terms see
        request = self.request("student")
        output |= {"masked"} if self.samples_text else set()
        tokens = {"all"} if output and self.kind.output == "spans" else set()  # a cache of outputs has a row for each
        captured = (
            {name for _, name in request.hidden | request.activations} | output | tokens | set(self.gathered_sets())
        )
        counted = {term.counted_rows() for term in self.terms}
        return RowSets(self.kind, frozenset(counted | captured), frozenset(output), chunk, self.samples_text)

    def gathered_sets(self) -> list[str]:
        """Return the row sets that are gathered from all processes, `sequences` first.

        There are none without terms that compare samples.
        """
        comparing: list[Any] = [term for term in self.terms if term.compares_samples]
        gathered = {term.signal_rows() for term in comparing}
        return ["sequences", *sorted(gathered - {"sequences"})] if gathered else []

    @property
    def passes(self) -> int:
        """How often the student reads a training batch: twice if a term compares two dropout passes."""
        return 2 if any(term.compares_passes for term in self.terms) else 1

    @property
    def samples_text(self) -> bool:
        """Whether the student reads each row a second time, with the teacher's draws in masked places."""
        return any(term.samples_text for term in self.terms)

    def counts(self, rows: Mapping[str, Tensor], passes: int = 1) -> list[int]:
        """Return the number of rows of a micro-batch for each term, from shapes (no device sync).

        Args:
            rows: row sets of the batch as it is read once.
            passes: how often the student reads it.
        """
        return [term.count(rows, passes) for term in self.terms]

    def weights(self, progress: float) -> list[float]:
        return [term.weight(progress) for term in self.terms]

    def row_weights(self, progress: float, counts: Tensor) -> Tensor:
        """Return the factor of a row of each term in the loss, (terms,).

        It is the term's weight, times its share if the terms are balanced, ÷ its rows in the whole step.
        """
        pairs = zip(self.weights(progress), counts.clamp_min(1).unbind(), strict=True)
        factors = torch.stack([weight / count for weight, count in pairs])  # a list to the device would synchronise it
        return factors if self.balance is None else factors * self.balance.shares()

    def vocabulary_loss(
        self,
        teacher: Signals,
        batch: Mapping[str, Any],
        progress: float,
        factors: Tensor,
        further: Sequence[OutputTerm] = (),
        kernel: VocabularyKernel | None = None,
    ) -> VocabularyLoss:
        """Return the loss on the student's vocabulary logits, for its recorder: (Σ factor · sum, sums), by chunks.

        Args:
            factors: the factor of each term.
            further: terms that are summed too, with a factor of 0.
            kernel: computes the terms that it knows together; torch if None.

        With a kernel, and on a GPU, projections are of a width that tensor cores multiply fast.
        """
        terms = [term for term in self.terms if isinstance(term, OutputTerm)]
        own_factors = [factor for term, factor in zip(self.terms, factors.unbind(), strict=True) if term in terms]
        output_factors = torch.stack([*own_factors, *(torch.zeros_like(factors[0]) for _ in further)])
        chunks, every = batch["chunks"], (*terms, *further)
        vocabulary = teacher.vocabulary
        is_aligned = kernel is not None or factors.device.type == "cuda"
        if is_aligned and isinstance(vocabulary, LazyLogits):
            vocabulary = aligned(vocabulary)

        def chunk_of(number: int, size: int) -> Chunk:
            start = number * chunks.size
            part = {**batch, "rows": chunks.rows(batch["rows"], number)}
            return Chunk(part, vocabulary and vocabulary.logits(start, start + size))

        def sums_of(logits: Tensor, chunk: Chunk, some: Sequence[OutputTerm]) -> Tensor:
            student, teachers = Signals(logits=logits), Signals(logits=chunk.teacher)
            sums = [
                term.sum(student, term.teacher_for(teachers, logits, progress), chunk.batch, progress) for term in some
            ]
            return torch.stack([value.float() for value in sums])

        def chunk_sums(logits: Tensor, number: int) -> Tensor:
            return sums_of(logits, chunk_of(number, len(logits)), every)

        fused = FusedChunkLoss(kernel, every, chunk_of, sums_of, progress) if kernel else None
        align = WORDS_ALIGNED if is_aligned else 1
        return lambda lazy: chunked_loss(
            lazy.states, lazy.weight, lazy.bias, chunk_sums, output_factors, chunks.size, fused, align
        )

    def loss(
        self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float, factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (Σ_terms factor · sum, the sums without gradient) of a micro-batch.

        The sums are in the order of `names`, followed by those of the `further` terms of `vocabulary_loss`.
        """
        loss: Any
        loss, measured = student.measured or (0.0, None)
        measured_sums = iter(() if measured is None else measured.unbind())
        sums = []
        for term, factor in zip(self.terms, factors.unbind(), strict=True):
            if measured is not None and isinstance(term, OutputTerm):
                sums.append(next(measured_sums))
                continue
            with torch.autocast(factors.device.type, enabled=False):  # evaluation calls this within autocast
                seen = term.seen(student)
                own = term.teacher_for(teacher, seen.logits, progress) if isinstance(term, OutputTerm) else teacher
                value = term.sum(seen, own, batch, progress).float()
            sums.append(value.detach())
            loss = loss + factor * value
        return loss, torch.stack([*sums, *measured_sums])


def _check_terms(terms: Any) -> None:
    """Raise UserError for anything but a list of terms, such as a term alone or a recipe's section."""
    wrong = [term for term in terms if not isinstance(term, LossTerm)] if isinstance(terms, list | tuple) else [terms]
    if wrong:
        fix = "write Objective([SoftTargetKL(1.0), HardLabel(1.0)])"
        raise UserError("objective", "a list of loss terms", type(wrong[0]).__name__, fix=fix)
