"""The objective: named, weighted terms, each a sum over rows, divided once by the rows of the whole step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distil_nlp.data.row_sets import RowSets
from distil_nlp.errors import UserError
from distil_nlp.objective.balancing import LossBalancer
from distil_nlp.objective.chunked_logits import chunked_loss
from distil_nlp.objective.output_terms import OutputTerm
from distil_nlp.objective.term import LossTerm, ModelShape, Role
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals, VocabularyLoss
from distil_nlp.tasks import TaskKind, task_kind


class Objective:
    """Σ_terms weight · (Σ_rows term ÷ rows of the whole optimiser step).

    Args:
        terms: at most one of each name. Those whose weight is 0 throughout are dropped: they cost nothing.
        kind: what the rows are: `mlm`, `classification` or `regression`.
        balance: weighs the terms against each other while training goes on; fixed weights if None.

    Raises:
        UserError: if no term with a weight is left, a name comes twice, or a term has no meaning for that kind.
    """

    def __init__(self, terms: Sequence[LossTerm], kind: TaskKind | str = "mlm", balance: LossBalancer | None = None):
        kind = task_kind(kind)
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise UserError(
                "objective",
                "each term once",
                f"{names}",
            )
        self.terms = [term for term in terms if not term.weight.always_zero]
        if not self.terms:
            raise UserError(
                "objective",
                "a term with a weight above 0",
                f"{names or 'none'}",
                why="there would be nothing to learn",
                fix="give one of them a weight",
            )
        for term in self.terms:
            if not term.applies_to(kind):
                raise UserError(
                    f"objective.{term.name}",
                    f"{' or '.join(term.kinds())}",
                    f"{kind}",
                    why="it has no meaning there",
                    fix="leave it out",
                )
            if balance is not None and balance.kind == "uncertainty" and term.why_not_balanced:
                raise UserError(
                    "balance.kind",
                    f"gradient_norm with {term.name}",
                    "uncertainty",
                    why=f"{term.why_not_balanced}",
                    fix="take gradient_norm, or leave balance out",
                )
        self.kind: TaskKind = kind
        self.balance = balance

    @property
    def names(self) -> list[str]:
        return [term.name for term in self.terms]

    @property
    def needs_teacher(self) -> bool:
        return any(term.needs_teacher for term in self.terms)

    def bind(self, teacher: ModelShape | None, student: ModelShape) -> None:
        """Fits the terms to the models; called once by the trainer.

        Raises:
            UserError: if a layer does not exist, heads do not match, or a term lacks its teacher.
        """
        if teacher is None and self.needs_teacher:
            lacking = [term.name for term in self.terms if term.needs_teacher]
            raise UserError(
                "objective",
                f"a teacher for {', '.join(lacking)}",
                "none",
                fix="pass teacher=…",
            )
        for term in self.terms:
            term.bind(self.kind, teacher, student)
        if self.balance is not None:
            self.balance.start(len(self.terms))
        self._projections = {k: v for term in self.terms for k, v in term.projections().items()}

    def request(self, role: Role) -> SignalRequest:
        """What all terms together need to see of one model."""
        wanted = [term.request(role) for term in self.terms if role == "student" or term.needs_teacher]
        return SignalRequest(
            logits=any(one.logits for one in wanted),
            hidden=frozenset().union(*(one.hidden for one in wanted)),
            attention=frozenset().union(*(one.attention for one in wanted)),
            values=frozenset().union(*(one.values for one in wanted)),
            scores=frozenset().union(*(one.scores for one in wanted)),
            activations=frozenset().union(*(one.activations for one in wanted)),
            weights=frozenset().union(*(one.weights for one in wanted)),
            input_gradient=any(one.input_gradient for one in wanted),
        )

    def projections(self) -> nn.ModuleDict:
        """The modules that only training needs; empty where all widths agree and weights are fixed."""
        balance = {"balance": self.balance} if self.balance is not None else {}
        return nn.ModuleDict({name: module for name, (_, module) in self._projections.items()} | balance)

    def projection_sources(self) -> dict[str, ProjectionInput]:
        return {name: source for name, (source, _) in self._projections.items()}

    def teacher_states(self, teacher: Signals) -> dict[str, Tensor]:
        """The teacher's states that projections take besides the student's, by the projections' names."""
        sources = self.projection_sources().items()
        return {name: teacher.hidden[source.teacher].detach() for name, source in sources if source.teacher is not None}

    def row_sets(self, chunk: int | None = None) -> RowSets:
        """The rows that a collator must draw for this objective; `chunk` of the vocabulary's rows at a time."""
        output = {term.signal_rows() for term in self.terms if isinstance(term, OutputTerm)}
        request = self.request("student")
        seen = {name for _, name in request.hidden | request.activations} | output | set(self.gathered_sets())
        return RowSets(
            self.kind, frozenset(term.counted_rows() for term in self.terms) | seen, frozenset(output), chunk
        )

    def gathered_sets(self) -> list[str]:
        """The row sets whose rows are gathered from all processes, `sequences` first; none without terms that compare
        rows."""
        seen = {term.signal_rows() for term in self.terms if term.compares_samples}
        return ["sequences", *sorted(seen - {"sequences"})] if seen else []

    def counts(self, rows: Mapping[str, Tensor]) -> list[int]:
        """Rows of one micro-batch for each term, read from shapes (no device sync)."""
        return [rows[term.counted_rows()].numel() for term in self.terms]

    def weights(self, progress: float) -> list[float]:
        return [term.weight(progress) for term in self.terms]

    def row_weights(self, progress: float, counts: Tensor) -> Tensor:
        """What a row of each term weighs in the loss, (terms,): its weight, times its share if they are balanced, ÷ its
        rows in the whole step."""
        both = zip(self.weights(progress), counts.clamp_min(1).unbind(), strict=True)
        found = torch.stack([weight / count for weight, count in both])  # no list goes to the device, which would sync
        return found if self.balance is None else found * self.balance.shares()

    def vocabulary_loss(
        self,
        teacher: Signals,
        batch: Mapping[str, Any],
        progress: float,
        factors: Tensor,
        further: Sequence[OutputTerm] = (),
    ) -> VocabularyLoss:
        """What the student's recorder makes of its vocabulary: (Σ factor · sum, sums) of the output terms, chunk by
        chunk; `further` ones are summed too, and weigh nothing."""
        terms = [term for term in self.terms if isinstance(term, OutputTerm)]
        weighed = [factor for term, factor in zip(self.terms, factors.unbind(), strict=True) if term in terms]
        weighed = torch.stack([*weighed, *(torch.zeros_like(factors[0]) for _ in further)])
        chunks = batch["chunks"]

        def look(logits: Tensor, number: int) -> Tensor:
            part, start = {**batch, "rows": chunks.rows(batch["rows"], number)}, number * chunks.size
            theirs = teacher.vocabulary and teacher.vocabulary.logits(start, start + len(logits))
            both = Signals(logits=logits), Signals(logits=theirs)
            return torch.stack([term.sum(*both, part, progress).float() for term in (*terms, *further)])

        return lambda seen: chunked_loss(seen.states, seen.weight, seen.bias, look, weighed, chunks.size)

    def loss(
        self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float, factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(Σ_terms factor · sum, the sums without gradient) of this micro-batch, in the order of `names`; behind them
        what else was measured."""
        loss, measured = student.measured or (0.0, None)
        ahead = iter(() if measured is None else measured.unbind())
        sums = []
        for term, factor in zip(self.terms, factors.unbind(), strict=True):
            if measured is not None and isinstance(term, OutputTerm):
                sums.append(next(ahead))
                continue
            with torch.autocast(factors.device.type, enabled=False):  # an evaluation has it on here
                value = term.sum(student, teacher, batch, progress).float()
            sums.append(value.detach())
            loss = loss + factor * value
        return loss, torch.stack([*sums, *ahead])
