"""Masking of the same words for two tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import encoding_name
from distil_nlp.data.masking import MaskingCollator
from distil_nlp.data.token_alignment import STARTS, STOPS

_OTHER = encoding_name(0)


@dataclass(kw_only=True)
class CommonMaskingCollator(MaskingCollator):
    """Masks the student's tokens as `MaskingCollator` does, and those of the teacher's that cover the same characters.

    Words are drawn by the student's tokens, and are words of both (`common_corpus`). What becomes of a token of the
    teacher's is what becomes of those that it overlaps: it is masked if one of them is, and replaced by the same word
    if one of them is replaced; these words are drawn among those that both vocabularies have.

    Args:
        other: the teacher's tokenizer.
        vocabulary: the words of both.
    """

    other: PreTrainedTokenizerBase
    vocabulary: CommonVocabulary

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ordinary = self._ordinary[self.vocabulary.teacher_of[self._ordinary] >= 0]

    def of(self, encoding: str) -> MaskingCollator:
        """Return the collator of the teacher's tokens alone, which draws words by these."""
        return MaskingCollator(self.other, self.probability, self.whole_words, None, self.seed)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(features)
        if f"{_OTHER}input_ids" not in features[0]:
            return batch
        masked, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        rows = [self._other(feature, masked[i], labels[i]) for i, feature in enumerate(features)]
        inputs = {"input_ids": [row.tolist() for row in rows]}
        padded = self.other.pad(inputs, return_tensors="pt", return_attention_mask=True, padding_side="right")
        if "token_type_ids" in self.other.model_input_names:
            padded["token_type_ids"] = torch.zeros_like(padded["input_ids"])
        return batch | {f"{_OTHER}{name}": value for name, value in padded.items()}

    def _other(self, feature: dict[str, Any], masked: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the teacher's tokens of a row, masked as the student's are; as they are in rows without partners."""
        row = np.array(feature[f"{_OTHER}input_ids"], dtype=np.int64)
        if STARTS not in feature:
            return row
        mask = self.tokenizer.mask_token_id
        changed = [place for place in np.flatnonzero(labels != -100) if masked[place] != labels[place]]
        for place in sorted(changed, key=lambda place: masked[place] == mask):  # masks come last, and prevail
            token = self.other.mask_token_id if masked[place] == mask else self.vocabulary.teacher_of[masked[place]]
            row[feature[STARTS][place] : feature[STOPS][place]] = token
        return row
