"""The data of a run: rows, head and collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from distil_nlp.data.answers import AnswerColumns
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.encodings import OWN, rows_of
from distil_nlp.data.kinds import data_module
from distil_nlp.data.splits import Split
from distil_nlp.errors import UserError
from distil_nlp.tasks import Head, TaskKind


@dataclass(frozen=True)
class DataLimits:
    """Settings of data loading that are the same for all kinds of task.

    Attributes:
        selection_share: fraction of the training rows that is split off to select a checkpoint; None without selection.
        data_seed: seed of splits and of sampled rows, the same for all students of a run.
        mask_seed: seed of the collator's masks.
        words: True for training rows with `word_ids` too.
        answers: columns with the outputs of a teacher that was asked elsewhere; None without any.
        encodings: tokenizers of further encodings of each row, by the encodings' names.
    """

    selection_share: float | None
    data_seed: int
    mask_seed: int
    words: bool = False
    answers: AnswerColumns | None = None
    encodings: Mapping[str, PreTrainedTokenizerBase] = field(default_factory=dict)


@dataclass
class TransferSet:
    """The rows that a student learns from (Hinton's word), with their head and collator.

    Attributes:
        task: name in the metrics table: a GLUE task, or a kind of task.
        head: the head that the rows need.
        split: rows for training, selection and reported scores.
        collator: rows → batch.
        revision: commit of the data on the Hub; None for local data.
        scoring_collator: rows → batch for scores, where it is another one than for training.
        teachers: the encoding that each teacher reads; empty where all read the student's.
        vocabulary: the words that student and teacher have in common, where words of two vocabularies are predicted.
    """

    task: str
    head: Head
    split: Split
    collator: Callable
    revision: str | None = None
    scoring_collator: Callable | None = None
    teachers: tuple[str, ...] = ()
    vocabulary: CommonVocabulary | None = None

    def encoding_of(self, teacher: int = 0) -> str:
        """Return the encoding that a teacher reads, by its number."""
        return self.teachers[teacher] if self.teachers else OWN

    def read_by(self, teacher: int = 0) -> TransferSet:
        """Return the data as a teacher reads it, by its number: the same rows and labels as its own tokens."""
        encoding = self.encoding_of(teacher)
        if encoding == OWN:
            return self
        collator, scoring, split = self.collator, self.scoring_collator, _read_split(self.split, encoding)
        own: Any = {"collator": collator, "scoring_collator": scoring}
        own = {name: one and one.of(encoding) for name, one in own.items()}
        return replace(self, split=split, **own, teachers=(), vocabulary=None)

    @property
    def scored_by(self) -> Callable:
        """The collator of rows that are scored."""
        return self.scoring_collator or self.collator

    @property
    def kind(self) -> TaskKind:
        """The kind of task."""
        return self.head.kind

    @property
    def group_size(self) -> int | None:
        """Most rows of a query in a training batch of whole queries; None for batches of single rows."""
        return getattr(self.collator, "group_size", None)

    def labelled(self) -> Any:
        """Return the training rows for learning from labels only: all text, or a task's labelled rows.

        Raises:
            UserError: if there are none.
        """
        rows = data_module(self.kind).labelled_rows(self.split.train)
        if hasattr(rows, "__len__") and not len(rows):
            raise UserError(
                "data.label_column",
                "some labelled training rows",
                "none",
                why="there would be nothing to learn from labels",
                fix="leave out teacher.finetune and the baseline no_distillation, or label some rows",
            )
        return rows

    @property
    def num_labelled(self) -> int | None:
        """Number of labelled training rows; None where every row is its own label."""
        return len(data_module(self.kind).labelled_rows(self.split.train)) if self.kind.has_labels else None


def _read_split(split: Split, encoding: str) -> Split:
    """Return the same rows as the tokens of an encoding."""
    return replace(
        split,
        train=rows_of(split.train, encoding),
        selection=rows_of(split.selection, encoding),
        evaluation={name: rows_of(rows, encoding) for name, rows in split.evaluation.items()},
    )
