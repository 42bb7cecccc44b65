"""Terms on outputs: between the logits of both models, or between the student's logits and the labels."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.kernels.vocabulary import FusedTerm
from distil_nlp.objective.gather import gather_rows
from distil_nlp.objective.heads import OWN_LOGITS, LogitsOf
from distil_nlp.objective.term import (
    LossTerm,
    ModelShape,
    NeededLabels,
    Role,
    RowSetName,
    Temperature,
    Weight,
    as_schedule,
    rows_of_outputs,
    validate_row_set,
)
from distil_nlp.signals.spans import span_rows
from distil_nlp.signals.types import DeferredLogits, SignalRequest, Signals
from distil_nlp.tasks import TaskKind
from distil_nlp.tasks.kind import ANSWERED, MATCHED, Output


class OutputTerm(LossTerm):
    """A term on logits: rows are tokens for language modelling and token classification, sequences otherwise.

    It is for a distribution or a number, unless its class names other `outputs`.

    Attributes:
        head: the one of the student's heads whose logits the term reads.
        accepts_top_logits: True if the teacher's logits may be `TopLogits`, as a cache has them for a vocabulary.
        least_classes: smallest number of classes for which the term has a gradient.
        temperature: T, by which the term divides the teacher's logits, a number or a `Schedule`.
        answered_only: True if the term leaves out rows to which the teacher has no answer; see
            `Objective.answered_only`.
    """

    answered_only: bool = False
    head: LogitsOf = OWN_LOGITS
    accepts_top_logits: bool = False
    temperature: Any = 1.0
    outputs: ClassVar[tuple[Output, ...]] = ("distribution", "number")
    least_classes: ClassVar[int] = 2

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        least, classes = self.least_classes, student.num_labels
        if self.kind.has_labels and self.kind.output == "distribution" and classes is not None and classes < least:
            raise UserError(
                f"objective.{self.name}",
                f"{least} classes or more",
                str(classes),
                why="with fewer it is constant for nearly all outputs, without a gradient",
                fix="leave it out",
            )

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(logits=role == "student" or self.needs_teacher)

    def of_head(self, head: LogitsOf, prefix: str, share: float = 1.0) -> OutputTerm:
        """Return a copy of the term for another head, named `<prefix>_<name>`, with `share` of its weight."""
        term = copy.deepcopy(self)
        vars(term).update(head=head, name=f"{prefix}_{self.name}", weight=self.weight.times(share))
        return term

    def answered(self, rows: str) -> str:
        """Return a row set, or the part of it that the teacher answers where the term learns from that part alone."""
        return f"{ANSWERED}{rows}" if self.answered_only and self.needs_teacher else self.aligned(rows)

    def aligned(self, rows: str) -> str:
        """Return a row set, or the part of it for which a teacher of other tokens has outputs.

        Labels of words, and words themselves, are predicted at one token; other outputs of tokens are means.
        """
        aligned = super().aligned(rows)
        is_of_one = aligned != rows and (rows == self.kind.label_rows or self.kind.predicts_words)
        return f"{MATCHED}{rows}" if is_of_one else aligned

    def seen(self, student: Signals) -> Signals:
        if self.head == OWN_LOGITS:
            return student
        return dataclasses.replace(student, logits=self.head(student))

    def signal_rows(self) -> str:
        """Return the row set whose logits the term uses."""
        return self.counted_rows()

    def teacher_for(self, teacher: Signals, student: Any, progress: float) -> Signals:
        """Return the teacher's signals with its logits as a tensor, where they depend on temperature or student.

        Args:
            student: logits of the same rows.
        """
        if not self.needs_teacher or not isinstance(teacher.logits, DeferredLogits):
            return teacher
        logits = teacher.logits.logits_for(student, as_schedule(self.temperature)(progress))
        return replace(teacher, logits=logits)

    def logits(self, signals: Signals, batch: Mapping[str, Any]) -> Any:
        """Return the logits of the term's rows, among those that the head ran on; of a window two rows."""
        if isinstance(signals.logits, dict):  # of a teacher that reads other tokens
            return signals.logits[self.signal_rows()]
        rows = batch["rows"][f"logits/{self.signal_rows()}"]
        logits = signals.logits.index_select(0, rows)
        return span_rows(logits, batch["is_allowed"].index_select(0, rows)) if self.reads_spans else logits

    def fused(self, progress: float) -> FusedTerm | None:
        """Return what the kernel of a vocabulary's losses has to compute for this term; None if it cannot."""
        return None

    @property
    def reads_spans(self) -> bool:
        """Whether a row of outputs is two distributions, of start and end, whose mean the term takes."""
        return self.kind.output == "spans"


class ChosenRowsTerm(OutputTerm):
    """A term on outputs whose rows, for language modelling, are chosen by the recipe.

    Args:
        rows: where outputs are of tokens: those with a label, which is the default (`masked` tokens of language
            modelling, `labelled` first sub-words of token classification), `all` attended tokens (of token
            classification those of words), or a sampled fraction of the attended ones.
            DistilBERT's published default is all; the masked 15 % save 85 % of the vocabulary projection.
    """

    def __init__(self, weight: Weight = 1.0, rows: RowSetName | None = None):
        super().__init__(weight)
        self.row_set = rows

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        if self.kind.level == "token":
            validate_row_set(self, self.row_set)

    def counted_rows(self) -> str:
        rows = rows_of_outputs(self.row_set, self.kind)
        return self.answered(rows) if self.kind.level == "sequence" else self.aligned(rows)

    @property
    def reads_masked_tokens(self) -> bool:
        return self.row_set in (None, "masked")


class SoftTerm(ChosenRowsTerm):
    """A term between the outputs of student and teacher.

    Args:
        rows: see `ChosenRowsTerm`.
    """

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        loss = self.loss(self.logits(student, batch), self.logits(teacher, batch), progress)
        return loss / 2 if self.reads_spans else loss

    def loss(self, student: Tensor, teacher: Any, progress: float) -> Tensor:
        """Return Σ over rows, from logits (rows, classes) of both models; regression has a single class, its output.

        Question answering has two rows a window, start and end, whose classes are positions.
        """
        raise NotImplementedError


class TemperedTerm(SoftTerm):
    """A term between the softened outputs of student and teacher.

    Args:
        temperature: T, a number or a `Schedule`.
        rows: see `ChosenRowsTerm`.

    Attributes:
        softened_loss: (student, teacher, T) → Σ over rows.
    """

    softened_loss: ClassVar[Any]

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 2.0, rows: RowSetName | None = None):
        super().__init__(weight, rows)
        self.temperature = as_schedule(temperature)

    def loss(self, student: Tensor, teacher: Any, progress: float) -> Tensor:
        return type(self).softened_loss(student, teacher, self.temperature(progress))


class LabelTerm(OutputTerm):
    """A term on the labels of tokens (masked ones, or first sub-words), or of rows whose label is not −100 or NaN."""

    uses_unlabelled_rows = False
    reads_masked_tokens = True

    def needed_labels(self, kind: TaskKind) -> NeededLabels | None:
        return "labels" if kind.label_rows == "labelled" else None

    def counted_rows(self) -> str:
        return self.answered(self.kind.label_rows)

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        if "labels" not in batch:
            return self.logits(student, batch).sum() * 0.0
        labels = self.labels_of(batch)
        labels = labels.flatten() if self.reads_spans else labels
        loss = self.loss(labels, self.logits(student, batch), teacher, batch, progress)
        return loss / 2 if self.reads_spans else loss

    def labels_of(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the labels of the term's rows, in their order."""
        labels = batch["labels"].flatten() if self.kind.level == "token" else batch["labels"]
        return labels.index_select(0, batch["rows"][self.counted_rows()])

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        """Return Σ over the labelled rows, from the student's `logits` (rows, classes).

        Labels are (rows,); (rows, classes) of 0 and 1 where a row has several. A window has two rows, start and end.
        """
        raise NotImplementedError


class OutputBatchTerm(OutputTerm):
    """A term on relations between the outputs of a micro-batch's sequences: like `BatchTerm`, but on logits.

    It has one value per micro-batch; a micro-batch of a single row is ignored. Not for language modelling, whose logits
    are computed chunk by chunk.
    """

    levels = ("sequence",)
    compares_samples = True

    def counted_rows(self) -> str:
        return "batch"

    def signal_rows(self) -> str:
        return "sequences"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        logits, teacher_logits = (
            gather_rows(self.logits(signals, batch), self.signal_rows(), batch) for signals in (student, teacher)
        )
        if not batch["rows"]["batch"].numel():
            return logits.sum() * 0.0
        return self.loss(logits, teacher_logits, progress)

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """Return the value of a micro-batch, from logits (rows, classes) of both models."""
        raise NotImplementedError
