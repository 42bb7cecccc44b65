"""`TeacherSource`: the origin of the teacher's signals.

Each source is a subclass in a file of this package: a frozen model, a cache, a moving average, answers in the data.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from distil_nlp.data.encodings import OWN
from distil_nlp.data.row_sets import RowCollator
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import Signals


class TeacherSource:
    """Provides the signals of a teacher for a batch; this base class has none, for objectives without a teacher.

    Attributes:
        model: the teacher; None if there is none, or it is not available.
        inputs: columns of a batch that it reads.
        cached_epochs: number of epochs whose draws are cached; None if it accepts any batch.
        reads_row_numbers: True if batches of training must say which rows they hold.
        has_gaps: True if it may have no answer to a row; terms on outputs then leave out those rows.
    """

    model: PreTrainedModel | None = None
    inputs: frozenset[str] = frozenset()
    cached_epochs: int | None = None
    reads_row_numbers: bool = False
    has_gaps: bool = False

    @property
    def models(self) -> list[PreTrainedModel]:
        """All models that may run where the source is asked."""
        return [] if self.model is None else ensemble_members(self.model)

    @property
    def encodings(self) -> list[str]:
        """The encoding that each of the models reads."""
        return [OWN] * len(self.models)

    @property
    def shape(self) -> ModelShape | None:
        """The sizes of the model, for terms that pair layers; None without a model."""
        return None if self.model is None else ModelShape.of(self.model.config)

    def attach(self, objective: Objective, mixes: bool = False) -> None:
        """Prepare to capture the signals that a bound objective requests.

        Args:
            mixes: True if batches may hold mixup partners.
        """

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Prepare for the training rows; called once, before the first row is read.

        Args:
            rows: all training rows.
            collator: the collator of training.
            options: `device`, `batch_size` and `workers` of a pass over the rows; `keep_model`, True if the model is
                needed on the device afterwards; `is_told_to_stop`, a function that says whether to end the pass early.
        """

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return the teacher's signals for a batch, without a graph."""
        return Signals()

    def observe(self, batch: dict[str, Any], student: Signals) -> None:
        """Look at the student's signals for a batch of training, after the source gave its own."""

    def to(self, device: torch.device | str) -> None:
        """Move the model to a device."""
        if self.model is not None:
            self.model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` without its types

    def remove_hooks(self) -> None:
        """Take every hook off the model."""

    def for_trainer(self) -> TeacherSource:
        """Return the source for one trainer: itself, or a copy where another trainer has attached it."""
        return self
