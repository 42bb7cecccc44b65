"""Soft targets and labels of vocabulary logits in one pass, with the gradient in place of the student's logits.

In torch each of a chunk's terms casts the logits to fp32 and reads and writes them some ten times. The kernel reads
each model's logits twice and writes once. Its sums and gradients equal those of the terms up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distil_nlp.kernels.fallback import TritonKernel

WORDS_ALIGNED = 64
"""Words to whose multiple an output projection is filled up, so that its products run on the fast kernels of a GPU."""
NO_LABEL = -100
_BLOCK = 4096
_WARPS = 8


@dataclass(frozen=True)
class FusedTerm:
    """A term that the kernel computes.

    Attributes:
        of: what it compares the student with: the `teacher`'s logits, by T² · KL; or the `labels`, by cross-entropy.
        temperature: T of the first.
    """

    of: Literal["teacher", "labels"]
    temperature: float = 1.0


@dataclass(frozen=True)
class FusedRows:
    """What a chunk's rows are compared with.

    Attributes:
        labels: (rows,), `NO_LABEL` where a row has none; None if none has.
        teacher: (rows, words) logits; None without soft targets.
        taught: (rows,), 1 where a row has soft targets; None without them.
        temperature: of the soft targets.
    """

    labels: Tensor | None = None
    teacher: Tensor | None = None
    taught: Tensor | None = None
    temperature: float = 1.0


class VocabularyKernel(TritonKernel):
    """The kernel, as long as it works."""

    what = "kernel of the vocabulary's losses"

    def replace_by_gradient(self, logits: Tensor, rows: FusedRows, factors: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return Σ rows of T² · KL and of the cross-entropy, and leave Σ factor · sum's gradient in place of `logits`.

        Args:
            logits: the student's, (rows, words), each row contiguous; its dtype is the gradient's.
            rows: what they are compared with.
            factors: (2,), of the two sums in the loss.

        Returns:
            The sums in fp32; None, with `logits` as they were, where the kernel does not work.

        Raises:
            UserError: in place of None, if the kernel is required.
        """
        return self.attempt(lambda: _launch(logits, rows, factors))


def _launch(logits: Tensor, rows: FusedRows, factors: Tensor) -> tuple[Tensor, Tensor]:
    import triton

    from distil_nlp.kernels.vocabulary_triton import losses_and_gradient

    count, words = logits.shape
    soft, hard = (torch.zeros(count, dtype=torch.float32, device=logits.device) for _ in range(2))
    nothing = torch.full((count,), NO_LABEL, device=logits.device)
    labels = nothing if rows.labels is None else rows.labels
    taught = torch.zeros(count, dtype=torch.int8, device=logits.device) if rows.taught is None else rows.taught
    teacher = logits if rows.teacher is None else rows.teacher
    if logits.stride(1) != 1 or teacher.stride(1) != 1:
        raise ValueError("expected rows of contiguous logits")
    if count:
        losses_and_gradient[(count,)](
            logits, teacher, labels, taught, factors.float().contiguous(), soft, hard,
            words, logits.stride(0), teacher.stride(0), float(rows.temperature),
            HAS_SOFT=rows.teacher is not None, HAS_HARD=rows.labels is not None,
            BLOCK=min(_BLOCK, triton.next_power_of_2(words)), num_warps=_WARPS,
        )  # fmt: skip
    return soft.sum(), hard.sum()
