"""The terms on a vocabulary that a kernel computes together, and those beside them that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distil_nlp.kernels.vocabulary import NO_LABEL, WORDS_ALIGNED, FusedRows, FusedTerm, VocabularyKernel
from distil_nlp.objective.chunked_logits import filled_up
from distil_nlp.objective.output_terms import OutputTerm
from distil_nlp.signals.types import LazyLogits

_KINDS = ("teacher", "labels")
"""What the kernel's terms compare the student with, in the order of its factors and sums."""


@dataclass(frozen=True)
class Chunk:
    """What a chunk of a vocabulary's logits is compared with.

    Attributes:
        batch: what of the batch is of its rows.
        teacher: the teacher's logits of its rows, in whatever form it has them; None without.
    """

    batch: Mapping[str, Any]
    teacher: Any


class FusedChunkLoss:
    """Sums and gradient of a chunk, those of the terms with a kernel in one pass; an `InPlaceLoss`.

    At most one term of each kind goes to the kernel, the others as before. None of them may depend on what another
    leaves in the logits: they are differentiated first.

    Args:
        kernel: of the vocabulary's losses.
        terms: on outputs, in the order of the factors.
        chunk_of: (number of a chunk, its rows) → what it is compared with.
        sums_of: (logits, chunk, terms) → the sums of these terms as torch computes them, (terms,).
        progress: fraction of training done.
    """

    def __init__(
        self,
        kernel: VocabularyKernel,
        terms: Sequence[OutputTerm],
        chunk_of: Callable[[int, int], Chunk],
        sums_of: Callable[[Tensor, Chunk, Sequence[OutputTerm]], Tensor],
        progress: float,
    ):
        self.kernel, self.terms, self.chunk_of, self.sums_of = kernel, terms, chunk_of, sums_of
        self.fused: dict[str, tuple[int, FusedTerm]] = {}
        for place, term in enumerate(terms):
            if (found := term.fused(progress)) is not None:
                self.fused.setdefault(found.of, (place, found))

    def __call__(self, logits: Tensor, number: int, factors: Tensor) -> Tensor | None:
        """Return the sums of all terms, with the gradient in place of the logits; None where there is no kernel."""
        if not self.fused or not self.kernel.works:
            return None
        chunk = self.chunk_of(number, len(logits))
        if "teacher" in self.fused and not isinstance(chunk.teacher, Tensor):
            self.fused.clear()  # answers of a cache, or of several teachers, are no plain logits, in no chunk
            return None
        sums, gradient = self._of_others(logits, chunk, factors)
        zero = factors.new_zeros(())
        own = [factors[self.fused[of][0]] if of in self.fused else zero for of in _KINDS]
        found = self.kernel.replace_by_gradient(logits, self._rows(chunk, len(logits)), torch.stack(own))
        if found is None:
            return None
        if gradient is not None:
            logits += gradient
        for of, value in zip(_KINDS, found, strict=True):
            if of in self.fused:
                sums[self.fused[of][0]] = value
        return sums

    def _of_others(self, logits: Tensor, chunk: Chunk, factors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the sums, with those of the terms that have no kernel, and the gradient of these; None without any."""
        taken = {place for place, _ in self.fused.values()}
        places, sums = [place for place in range(len(self.terms)) if place not in taken], torch.zeros_like(factors)
        if not places:
            return sums, None
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            found = self.sums_of(leaf, chunk, [self.terms[place] for place in places])
            own = torch.stack([factors[place] for place in places])  # a list of places to the device would wait for it
            (gradient,) = torch.autograd.grad((found * own).sum(), leaf)
        for place, value in zip(places, found.detach(), strict=True):
            sums[place] = value
        return sums, gradient

    def _rows(self, chunk: Chunk, size: int) -> FusedRows:
        """Return what each row of a chunk is compared with."""
        rows, labels, teacher, taught, temperature = chunk.batch["rows"], None, None, None, 1.0
        if "labels" in self.fused:
            term: Any = self.terms[self.fused["labels"][0]]
            labels = _filled(size, rows[f"logits/{term.signal_rows()}"], term.labels_of(chunk.batch), NO_LABEL)
        if "teacher" in self.fused:
            place, soft = self.fused["teacher"]
            index = rows[f"logits/{self.terms[place].signal_rows()}"]
            teacher, taught = chunk.teacher, _filled(size, index, torch.ones_like(index), 0)
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


def _filled(size: int, index: Tensor, values: Tensor, otherwise: int) -> Tensor:
    """Return (size,) values, those of some rows at their places."""
    return torch.full((size,), otherwise, dtype=values.dtype, device=values.device).index_copy(0, index, values)
