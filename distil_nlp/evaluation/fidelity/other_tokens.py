"""Outputs on tokens of a teacher that reads other tokens than its student: of words that are one token in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import PARTNERED, batch_of, columns_of
from distil_nlp.data.partners import means_of
from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.signals.types import forward_arguments
from distil_nlp.tasks import TaskKind
from distil_nlp.tasks.kind import MATCHED
from distil_nlp.teachers.common_words import CommonLogits


@dataclass(frozen=True)
class OtherTokens:
    """The tokens that a teacher reads, where they are not the student's.

    Attributes:
        kind: of the task, whose outputs are of tokens.
        encoding: the columns that the teacher reads; see `distil_nlp.data.encodings`.
        vocabulary: the words that both have, where words are predicted.
    """

    kind: TaskKind
    encoding: str
    vocabulary: CommonVocabulary | None = None

    @property
    def compared(self) -> str:
        """The row set of the tokens that are compared: those with a label, of the same word in both models."""
        return f"{MATCHED}{self.kind.label_rows}"

    def collator(self, collate: Callable, teacher: Any, student: Any) -> RowCollator:
        """Return the collator of rows that both models read."""
        sets, read = frozenset({self.compared}), columns_of(forward_arguments(teacher), self.encoding)
        known = read | forward_arguments(student) | self.kind.columns
        return RowCollator(collate, RowSets(self.kind, sets, sets), known)

    def of_teacher(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the teacher reads of a batch."""
        return batch_of(batch, self.encoding)

    def of_student(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a batch whose labelled tokens are those that are compared."""
        rows = batch["rows"]
        return {**batch, "rows": {**rows, self.kind.label_rows: rows[self.compared]}}

    def aligned(self, logits: Tensor, student: Tensor, batch: Mapping[str, Any]) -> Tensor | TopLogits:
        """Return the teacher's logits of the tokens that are compared.

        Args:
            logits: of the teacher's own tokens, or of a token for each of the student's where words are predicted.
            student: the student's, (tokens, classes).
            batch: with the partners of the student's tokens.
        """
        if self.vocabulary is None:
            return means_of(logits, batch[PARTNERED][self.compared])
        student_of, words = (torch.from_numpy(table).to(logits.device) for table in self.vocabulary.merged)
        return CommonLogits(logits, student_of, words).logits_for(student, 1.0)
