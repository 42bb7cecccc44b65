"""Soft targets and labels of vocabulary logits in one pass, with the gradient in place of the student's logits.

In torch each of a chunk's terms casts the logits to fp32 and reads and writes them some ten times. The kernel reads
each model's logits twice and writes once. Its sums and gradients equal those of the terms up to rounding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

Kernels = Literal["auto", "triton", "torch"]
"""Whose kernels are used: Triton's where it is there, Triton's or an error, torch's alone."""
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


class VocabularyKernel:
    """The kernel, as long as it works: where it cannot be compiled, one warning says so, and torch goes on.

    Args:
        is_required: whether a kernel that fails is an error.
    """

    def __init__(self, is_required: bool = False):
        self.is_required, self.works = is_required, True

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
        if not self.works:
            return None
        try:
            return _launch(logits, rows, factors)
        except Exception as error:  # whatever Triton, its compiler or the driver raise
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        """Let torch do the work from now on, with one warning."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if self.is_required:
            raise UserError(
                "run.kernels",
                "Triton to run the kernel of the vocabulary's losses",
                reason,
                fix="set run.kernels=auto, which goes on without it",
            ) from error
        self.works = False
        logger.warning(f"run.kernels: Triton's kernel of the vocabulary's losses failed, torch goes on: {reason}")


def vocabulary_kernel(kernels: Kernels, device: torch.device) -> VocabularyKernel | None:
    """Return the kernel for a device; None where torch does the work.

    Raises:
        UserError: if Triton is asked for and is not there, or the device is none of its.
    """
    if kernels == "torch":
        return None
    missing = why_not_triton(device)
    if missing is None:
        return VocabularyKernel(is_required=kernels == "triton")
    if kernels == "triton":
        raise UserError("run.kernels", "Triton on a GPU", missing, fix="set run.kernels=auto or torch")
    return None


def why_not_triton(device: torch.device) -> str | None:
    """Return why Triton's kernels do not run on a device; None if they do."""
    if device.type not in ("cuda", "xpu") and not _is_interpreted():
        return f"device {device.type}"
    return None if _has_triton() else "no package triton, which torch's CUDA builds bring along"


def _is_interpreted() -> bool:
    """Return whether Triton interprets its kernels, on any device, as tests have it."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _launch(logits: Tensor, rows: FusedRows, factors: Tensor) -> tuple[Tensor, Tensor]:
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
            BLOCK=min(_BLOCK, _power_above(words)), num_warps=_WARPS,
        )  # fmt: skip
    return soft.sum(), hard.sum()


def _power_above(number: int) -> int:
    return 1 << max(number - 1, 1).bit_length()
