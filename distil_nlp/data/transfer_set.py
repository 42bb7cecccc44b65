"""The data of a run: rows, head and collator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distil_nlp.data.kinds import data_module
from distil_nlp.data.splits import Split
from distil_nlp.errors import UserError
from distil_nlp.tasks import Head, TaskKind


@dataclass(frozen=True)
class DataLimits:
    """Settings of the loading that are the same for all kinds of task.

    Attributes:
        selection_share: fraction of the training rows that is split off to choose a checkpoint by; None for no choice.
        data_seed: seed of splits and of rows that are drawn: the same for all students of a run.
        mask_seed: seed of what a collator draws.
        words: whether training rows have `word_ids` too.
    """

    selection_share: float | None
    data_seed: int
    mask_seed: int
    words: bool = False


@dataclass
class TransferSet:
    """Rows to learn from (Hinton's word), and what turns them into batches.

    Attributes:
        task: name in the metrics table: a GLUE task, or a kind of task.
        head: the head that the rows need.
        split: rows to train on, to choose by, to report on.
        collator: rows → batch.
        revision: commit of the data on the Hub; None for local data.
    """

    task: str
    head: Head
    split: Split
    collator: Callable
    revision: str | None = None

    @property
    def kind(self) -> TaskKind:
        """The kind of task."""
        return self.head.kind

    def labelled(self) -> Any:
        """Return the training rows that labels only can teach: all text, or a task's labelled rows.

        Raises:
            UserError: if there are none.
        """
        rows = data_module(self.kind).labelled_rows(self.split.train)
        if hasattr(rows, "__len__") and not len(rows):
            raise UserError(
                "data.label_column",
                "some labelled training rows",
                "none",
                why="labels could teach nothing",
                fix="leave out teacher.finetune and the baseline no_distillation, or label some rows",
            )
        return rows

    @property
    def num_labelled(self) -> int | None:
        """Number of labelled training rows; None where every row is its own label."""
        return len(data_module(self.kind).labelled_rows(self.split.train)) if self.kind.has_labels else None
