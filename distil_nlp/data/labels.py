"""`LabelReader`: reading, validation and encoding of a label column."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.data.common_text import cut_alike
from distil_nlp.data.tokenization import tokenise, trim_long_pairs
from distil_nlp.tasks import Task

Labels = tuple[str, ...] | None
"""Class names in the order of their ids; None where the data does not name its classes."""


class LabelReader(ABC):
    """Reads the labels of one kind of task.

    Attributes:
        dtype: of labels in a batch.
        missing: label of an unlabelled row; such rows are ignored by terms on labels.
    """

    dtype: ClassVar[type[np.generic]]
    missing: ClassVar[float]

    @abstractmethod
    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return (class names, number of outputs), from the task table or the training split.

        Raises:
            UserError: if the column cannot be read as labels of this kind, or the splits contradict each other.
        """

    @abstractmethod
    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return the values that are not valid labels of this kind; `values` holds no missing labels."""

    @abstractmethod
    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return a description of the valid labels, for messages."""

    @abstractmethod
    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return the labels as numbers, `missing` for unlabelled rows."""

    def feature(self, num_labels: int) -> Any:
        """Return the type of the column of encoded labels."""
        return Value(np.dtype(self.dtype).name)

    def features(self, num_labels: int) -> dict[str, Any]:
        """Return the columns that `columns` gives, and their types."""
        return {"labels": self.feature(num_labels)}

    def columns(self, values: Sequence[Any], classes: Any, tokens: BatchEncoding) -> dict[str, list[Any]]:
        """Return the columns of labels of tokenised rows: one of each row.

        Args:
            classes: names of the classes, and the number of outputs.
        """
        return {"labels": self.encode(values, *classes)}

    def further_features(self, encodings: Iterable[str]) -> dict[str, Any]:
        """Return the columns that `further_columns` gives, and their types."""
        return {}

    def further_columns(
        self, values: Sequence[Any], classes: Any, read: Mapping[str, BatchEncoding]
    ) -> dict[str, list[Any]]:
        """Return the columns of labels that rows of several tokenizers have besides: those of labels of tokens.

        Args:
            classes: names of the classes, and the number of outputs.
            read: the tokens of all encodings, by their names.
        """
        return {}

    def cut_alike(
        self, texts: Mapping[str, Sequence[Any]], tokenizers: Sequence[PreTrainedTokenizerBase], max_length: int
    ) -> tuple[dict[str, list[Any]], list[bool]]:
        """Return the texts that all tokenizers read in full, and which rows were cut for it."""
        return cut_alike(texts, tokenizers, max_length)

    def unlabelled(self, count: int, num_labels: int) -> np.ndarray:
        """Return the encoded labels of so many unlabelled rows."""
        return np.full(count, self.missing, self.dtype)

    def strata(self, values: Sequence[Any]) -> list[Hashable]:
        """Return for each label the group of rows that is to have its share of the rows that are scored.

        Missing labels have a group that means nothing.
        """
        return list(values)

    def tokenise(
        self, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[Any]], max_length: int | None
    ) -> BatchEncoding:
        """Return the tokens of texts or pairs of texts, cut at `max_length`; whole if that is None."""
        if len(texts) == 2 and max_length is not None:
            first, second = texts.values()
            texts = dict(zip(texts, trim_long_pairs(tokenizer, first, second, max_length), strict=True))
        return tokenise(tokenizer, texts, truncation=max_length is not None, max_length=max_length)


def is_missing(value: Any) -> bool:
    """Return True for the label of an unlabelled row: null, −100 or NaN."""
    return value is None or value == -100 or (isinstance(value, float) and math.isnan(value))
