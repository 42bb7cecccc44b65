"""Batches of windows of question answering: padding, allowed positions, and what scores need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

NOT_CONTEXT = -1
"""Place in the context of a token that is none of it."""


@dataclass(frozen=True)
class Windows:
    """What scores need of a batch's windows, a value each.

    Attributes:
        question_ids: the number of the question.
        contexts: the whole text.
        answers: all right answers; none where the text has none.
        starts: for each token the character of the context at which it starts; −1 for other tokens.
        ends: for each token the character behind it; likewise.
    """

    question_ids: list[int]
    contexts: list[str]
    answers: list[list[str]]
    starts: list[list[int]]
    ends: list[list[int]]


@dataclass
class QACollator:
    """Pads windows to the longest of the batch, or further to a multiple.

    A batch has `labels`, (windows, 2), positions of the first and the last token of the answer, and `is_allowed`,
    (windows, seq), the positions that may be one. For scores it also has `windows`.
    """

    tokenizer: PreTrainedTokenizerBase
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        inputs = [{k: v for k, v in row.items() if k in self.tokenizer.model_input_names} for row in features]
        batch: dict[str, Any] = dict(
            self.tokenizer.pad(inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt")
        )
        length = batch["input_ids"].shape[1]
        before = [self._padding_before(row, length) for row in features]
        batch["is_allowed"] = torch.zeros(len(features), length, dtype=torch.bool)
        for allowed, row, first in zip(batch["is_allowed"], features, before, strict=True):
            allowed[first : first + len(row["is_allowed"])] = torch.tensor(row["is_allowed"])
        if "labels" in features[0]:
            labels = torch.tensor([row["labels"] for row in features])
            batch["labels"] = labels + torch.tensor(before)[:, None] * (labels >= 0)
        if "context" in features[0]:
            batch["windows"] = self._windows(features, before)
        return batch

    def _padding_before(self, row: Mapping[str, Any], length: int) -> int:
        return length - len(row["input_ids"]) if self.tokenizer.padding_side == "left" else 0

    def _windows(self, features: Sequence[dict[str, Any]], before: Sequence[int]) -> Windows:
        starts, ends = (
            [[NOT_CONTEXT] * first + row[name] for row, first in zip(features, before, strict=True)]
            for name in ("token_starts", "token_ends")
        )
        numbers, contexts, answers = ([row[name] for row in features] for name in ("question_id", "context", "answers"))
        return Windows(numbers, contexts, answers, starts, ends)
