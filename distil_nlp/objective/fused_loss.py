"""The terms on a vocabulary that a kernel computes together, and those beside them that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distil_nlp.kernels.vocabulary import NO_LABEL, WORDS_ALIGNED, FusedRows, FusedTerm, VocabularyKernel
from distil_nlp.objective.chunked_logits import filled_up
from distil_nlp.objective.output_terms import LabelTerm, OutputTerm
from distil_nlp.signals.types import LazyLogits

TermSums = Callable[[Tensor, int, Sequence[OutputTerm]], Tensor]
"""(logits of a chunk, its number, terms) → the sums of these terms, (terms,)."""


class FusedChunkLoss:
    """Sums and gradient of a chunk, those of the terms with a kernel in one pass; an `InPlaceLoss`.

    At most one term of each kind goes to the kernel, the others as before. None of them may depend on what another
    leaves in the logits: they are differentiated first.

    Args:
        kernel: of the vocabulary's losses.
        terms: on outputs, in the order of the factors.
        part_of: number of a chunk → what of the batch is of its rows.
        teacher_of: (rows of the chunk's start, end) → the teacher's logits.
        sums_of: as torch computes them.
        progress: fraction of training done.
    """

    def __init__(
        self,
        kernel: VocabularyKernel,
        terms: Sequence[OutputTerm],
        part_of: Callable[[int], Mapping[str, Any]],
        teacher_of: Callable[[int, int], Any],
        sums_of: TermSums,
        progress: float,
    ):
        self.kernel, self.terms = kernel, terms
        self.part_of, self.teacher_of, self.sums_of = part_of, teacher_of, sums_of
        self.fused: dict[str, tuple[int, FusedTerm]] = {}
        for place, term in enumerate(terms):
            if (found := term.fused(progress)) is not None:
                self.fused.setdefault(found.of, (place, found))

    def __call__(self, logits: Tensor, number: int, factors: Tensor) -> Tensor | None:
        """Return the sums of all terms, with the gradient in place of the logits; None where there is no kernel."""
        if not self.fused or not self.kernel.works:
            return None
        part, size = self.part_of(number), len(logits)
        teacher = self.teacher_of(number, size) if "teacher" in self.fused else None
        if "teacher" in self.fused and not isinstance(teacher, Tensor):
            return None  # answers of a cache, or of several teachers, are no plain logits
        places = [place for place, _ in self.fused.values()]
        others = [place for place in range(len(self.terms)) if place not in places]
        sums, gradient = self._of_others(logits, number, factors, others)
        zero = factors.new_zeros(())
        own = [factors[self.fused[of][0]] if of in self.fused else zero for of in ("teacher", "labels")]
        found = self.kernel.replace_by_gradient(logits, self._rows(part, teacher, size), torch.stack(own))
        if found is None:
            return None
        if gradient is not None:
            logits += gradient
        for of, value in zip(("teacher", "labels"), found, strict=True):
            if of in self.fused:
                sums[self.fused[of][0]] = value
        return sums

    def _of_others(
        self, logits: Tensor, number: int, factors: Tensor, places: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Return the sums, with those of some terms, and the gradient of these; None without any."""
        sums = torch.zeros_like(factors)
        if not places:
            return sums, None
        index = torch.tensor(places, device=factors.device)
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            found = self.sums_of(leaf, number, [self.terms[place] for place in places])
            (gradient,) = torch.autograd.grad((found * factors[index]).sum(), leaf)
        sums[index] = found.detach()
        return sums, gradient

    def _rows(self, part: Mapping[str, Any], teacher: Tensor | None, size: int) -> FusedRows:
        """Return what each row of a chunk is compared with."""
        rows, labels, taught, temperature = part["rows"], None, None, 1.0
        if "labels" in self.fused:
            term: Any = self.terms[self.fused["labels"][0]]
            labels = rows_filled(size, rows[f"logits/{term.signal_rows()}"], _labels_of(term, part), NO_LABEL)
        if "teacher" in self.fused:
            place, soft = self.fused["teacher"]
            index = rows[f"logits/{self.terms[place].signal_rows()}"]
            taught = rows_filled(size, index, torch.ones_like(index), 0)
            temperature = soft.temperature
        return FusedRows(labels, teacher, taught, temperature)


def aligned(logits: LazyLogits) -> LazyLogits:
    """Return the same logits, of a projection that is filled up to a multiple of `WORDS_ALIGNED` words."""
    if logits.weight is None:
        return logits
    weight, bias = filled_up(logits.weight, WORDS_ALIGNED), logits.bias
    return LazyLogits(
        logits.states, weight, None if bias is None else filled_up(bias, WORDS_ALIGNED), len(logits.weight)
    )


def _labels_of(term: LabelTerm, part: Mapping[str, Any]) -> Tensor:
    return term.labels_of(part)


def rows_filled(size: int, index: Tensor, values: Tensor, otherwise: int) -> Tensor:
    """Return (size,) values, those of some rows at their places."""
    return torch.full((size,), otherwise, dtype=values.dtype, device=values.device).index_copy(0, index, values)
