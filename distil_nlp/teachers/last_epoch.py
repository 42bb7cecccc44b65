"""`LastEpochTeacher`: the student's own predictions of the epoch before, mixed with the labels (PS-KD)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from distil_nlp.data.row_sets import NUMBERS, RowCollator
from distil_nlp.errors import UserError
from distil_nlp.objective import ModelShape, OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import Signals
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.teachers.source import TeacherSource


class LastEpochTeacher(ChangingTeacher):
    """Targets (1 − α_t) · y + α_t · p, p being the student's prediction for the row in the epoch before.

    α_t = α · t / epochs in epoch t = 1, 2, …, so that it is α in the last one (PS-KD, Kim, Ji, Yoon, Hwang 2021,
    arXiv:2006.12000). As in the authors' code (lgcnsai/PS-KD-Pytorch), predictions are those of training itself, with
    dropout, and rows without one (all in the first epoch) have their label alone. So have rows of evaluations.
    `soft_target_cross_entropy` to these targets at temperature 1 is the loss of the paper. For regression the target is
    the same mixture of two numbers, which is not in the paper.

    The store has the outputs of every training row: float32, (rows, classes), on the device. Every process knows all of
    it at the end of an epoch. A row that an epoch leaves out (`dataloader_drop_last`) keeps its older prediction. Rows
    without label and prediction have a uniform target (0 for regression).

    Args:
        config: the student's, for the number of its outputs.
        alpha: α, in [0, 1].
    """

    reads_row_numbers = True

    def __init__(self, config: PretrainedConfig, alpha: float = 0.8):
        self.config, self.alpha = config, alpha
        self._share, self._count = 0.0, -1

    @property
    def shape(self) -> ModelShape:
        """The sizes of the student, whose outputs these are."""
        return ModelShape.of(self.config)

    def for_trainer(self) -> TeacherSource:
        """Return itself, or one without predictions where another trainer has filled this one."""
        return self if self._count < 0 else LastEpochTeacher(self.config, self.alpha)

    @property
    def _classes(self) -> int:
        return int(self.config.num_labels or 0)

    def attach(self, objective: Objective, mixes: bool = False) -> None:
        """Raise UserError for an objective that needs more than outputs of whole rows, or rows without a label."""
        validate_last_epoch(objective, mixes)
        self._is_number = objective.kind.output == "number"

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Make room for the predictions of all rows; once.

        Raises:
            UserError: if the rows are a stream.
        """
        if not hasattr(rows, "__len__"):
            raise UserError(
                "teacher.self",
                "training rows with a length",
                "a stream",
                why="its rows have no numbers to find their last predictions by",
                fix="take a dataset that is no stream, or another kind of teacher.self",
            )
        if self._count < 0:
            self._count = len(rows)
            self._device = torch.device(options["device"])
            self._clear()

    def _clear(self) -> None:
        """Forget all predictions; the row after the last one is for rows that only fill up a batch."""
        size = (self._count + 1, 1 if self._is_number else self._classes)
        self._outputs = torch.zeros(size, device=self._device)
        self._known = torch.zeros(self._count + 1, dtype=torch.bool, device=self._device)
        self._fresh = torch.zeros_like(self._known)

    def start(self, student: Any) -> None:
        self._clear()

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self._share = self.alpha * (epoch + 1) / epochs

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return the targets as logits, whose softmax they are; as numbers for regression."""
        target = self._labels(batch)
        if NUMBERS in batch:
            places = batch[NUMBERS].clamp(max=self._count)
            own = self._outputs[places] if self._is_number else self._outputs[places].softmax(-1)
            mixed = (1 - self._share) * target + self._share * own
            target = torch.where(self._known[places].unsqueeze(1), mixed, target)
        return Signals(logits=target if self._is_number else target.clamp_min(torch.finfo(target.dtype).tiny).log())

    def _labels(self, batch: dict[str, Any]) -> Tensor:
        """Return the labels as targets, (rows, classes) or (rows, 1)."""
        ids = batch["input_ids"]
        labels = batch.get("labels", torch.full((len(ids),), -100, device=ids.device)).unsqueeze(1)
        if self._is_number:
            return labels.float().nan_to_num(0.0)
        hits = (labels == torch.arange(self._classes, device=labels.device)).float()
        return torch.where(labels < 0, 1 / self._classes, hits)

    def observe(self, batch: dict[str, Any], student: Signals) -> None:
        """Keep the predictions of a micro-batch of training, after its own targets are taken."""
        if NUMBERS not in batch:
            return
        places = batch[NUMBERS].clamp(max=self._count)
        passes = len(student.logits) // len(places)  # a batch that is read twice has both passes side by side
        self._outputs[places] = student.logits[::passes].detach().float()
        for flags in (self._known, self._fresh):
            flags[places] = True
            flags[self._count] = False

    def exchange(self, total: Callable[[Tensor], Tensor]) -> None:
        """Give every process the predictions that any has made since; each row is seen by one process in an epoch."""
        fresh = self._fresh.unsqueeze(1)
        outputs = total(torch.where(fresh, self._outputs, 0.0))
        seen = total(fresh.float()) > 0
        self._outputs = torch.where(seen, outputs, self._outputs)
        self._known |= seen.squeeze(1)
        self._fresh.zero_()

    def state(self) -> dict[str, Tensor]:
        return {"outputs": self._outputs[: self._count], "known": self._known[: self._count]}

    def state_bytes(self, rows: int) -> int:
        return rows * (4 * self._classes + 1)  # the outputs, and whether there are any

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the predictions of a checkpoint.

        Raises:
            UserError: if it has other rows or classes.
        """
        self._clear()
        expected, got = self._outputs[: self._count], state["outputs"]
        if got.shape != expected.shape:
            raise UserError(
                "teacher.self",
                f"predictions of {tuple(expected.shape)} rows and classes in the checkpoint",
                str(tuple(got.shape)),
                why="they are of other rows",
                fix="start anew (run.overwrite=true)",
            )
        expected.copy_(got)
        self._known[: self._count] = state["known"].to(self._device)


def validate_last_epoch(objective: Objective, mixes: bool = False) -> None:
    """Raise UserError for an objective that a student's own predictions of the last epoch cannot serve.

    Args:
        objective: its kind of task and its terms are checked.
        mixes: True if batches may hold mixtures of rows.
    """
    if objective.kind.level == "token":
        raise UserError(
            "teacher.self",
            "a task with an output for each row",
            objective.kind.title,
            why="predictions are kept by row, not by token",
            fix="set teacher.self=ema or checkpoints",
        )
    if objective.kind.output not in ("distribution", "number"):
        raise UserError(
            "teacher.self",
            "a class or a number for each row with last_epoch",
            objective.kind.title,
            why="its targets are mixtures of a label and one distribution, or of two numbers",
            fix="set teacher.self=ema or checkpoints",
        )
    needing = [term for term in objective.terms if term.needs_teacher]
    others = [term.name for term in needing if not isinstance(term, OutputTerm)]
    if others:
        raise UserError(
            "teacher.self",
            "terms on outputs with last_epoch",
            ", ".join(others),
            why="of the last epoch nothing but predictions is kept",
            fix="leave them out, or set teacher.self=ema or checkpoints",
        )
    if mixes:
        raise UserError(
            "data.augmentation.mixup",
            "none with teacher.self=last_epoch",
            "mixtures of rows",
            why="they have no label, and other mixtures were predicted in the last epoch",
            fix="leave one of the two out",
        )
