"""Logits of a teacher's vocabulary as those of the words that it has in common with the student's, and all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.signals.types import DeferredLogits


@dataclass(frozen=True)
class CommonWords:
    """In place of `LazyLogits`: a teacher's logits by the student's tokens.

    Attributes:
        own: of the teacher's vocabulary, see `Signals.vocabulary`.
        student_of: (teacher ids,), the student's token of the same word, or −1; see `CommonVocabulary`.
        words: the student's tokens among these, each once.
    """

    own: Any
    student_of: Tensor
    words: Tensor

    def logits(self, start: int, stop: int) -> CommonLogits:
        """Return the logits of rows `start` to `stop`, to be read at a temperature."""
        return CommonLogits(self.own.logits(start, stop), self.student_of, self.words)


@dataclass(frozen=True)
class CommonLogits(DeferredLogits):
    """Logits of a teacher's vocabulary that are read as those of common words.

    Attributes:
        own: (rows, teacher ids).
        student_of, words: see `CommonWords`.
    """

    own: Tensor
    student_of: Tensor
    words: Tensor

    def logits_for(self, student: Tensor, temperature: float) -> TopLogits:  # type: ignore[override]
        """Return, at a temperature, the log-probabilities of the common words, and of all others as one.

        Tokens of the teacher's that are one word of the student's have the sum of their probabilities.
        """
        size = student.shape[1]
        places = torch.full((self.own.shape[1],), size, device=self.own.device)  # that of all others
        places[: len(self.student_of)] = torch.where(self.student_of >= 0, self.student_of, size)
        shares = (self.own.float() / temperature).softmax(1)
        merged = shares.new_zeros(len(shares), size + 1).index_add(1, places, shares)
        logs = merged.clamp_min(torch.finfo(merged.dtype).tiny).log()
        return TopLogits(self.words.expand(len(logs), -1), temperature * logs[:, self.words], logs[:, size])
