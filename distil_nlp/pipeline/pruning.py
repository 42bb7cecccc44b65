"""Pruning before training: importance of the teacher's parts, on disk for other runs, and repair of what was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from distil_nlp.data.fingerprint import hash_json, hash_model
from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.models import StudentReport
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.pruning import Importance, axes_of, measure_importance, repair
from distil_nlp.pipeline import builders
from distil_nlp.reporting.pruning import pruning_sentence
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind
from distil_nlp.utils.files import atomic_file
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)

Score = Callable[[PreTrainedModel], dict[str, Any]]


@dataclass
class Pruner:
    """Makes what a student is cut from, and repairs the student.

    Attributes:
        run: of the student, a `StudentRun`.
    """

    run: Any

    def __post_init__(self) -> None:
        self.section = builders.pruning_of(self.run.recipe.student)

    def cut(self, teacher: PreTrainedModel) -> builders.Cut | None:
        """Return what the student is made of; None where it has whole layers."""
        section = self.run.recipe.student
        if self.section is None:
            return None
        whole = builders.with_vocabulary(self.run.recipe, ensemble_members(teacher)[0], self.run.tokenizer)
        any_parts = builders.cut_from(section, whole, None)  # which shows whether the model can be cut
        return any_parts if section.layers == "random" else builders.cut_from(section, whole, self.importance(whole))

    def importance(self, model: PreTrainedModel) -> Importance:
        """Return the importance of a model's parts: from disk, or measured by the first process and kept there."""
        section = self.section
        assert section is not None
        name, seed = self.run.data.task, self.run.args.seed if section.importance == "random" else 0
        key = hash_json([hash_model(model), self.run.provenance.training_rows, section.rows, section.importance, seed])
        file = Path(section.folder) / f"{name}-{section.importance}-{key[:16]}.safetensors"
        with PartialState().main_process_first():
            if not file.is_file():
                found = self._measured(model, seed)
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(file) as partial:
                    save_file({name: value.contiguous() for name, value in found.tensors().items()}, partial)
        return Importance(**load_file(file))

    def _measured(self, model: PreTrainedModel, seed: int) -> Importance:
        section, kind = self.section, self.run.data.kind
        assert section is not None
        model.to(self.run.args.device)
        batches = _Progress(self.batches(model, section.rows), f"importance by {section.importance}")

        def loss(batch: Mapping[str, Any]) -> Tensor:
            return drawn_loss(forward_with_signals(model, batch, batch["rows"]).logits, kind, batch)

        with _giving_logits(model, kind):
            return measure_importance(model, axes_of(model), batches, loss, section.importance, seed=seed)

    def repair(self, student: PreTrainedModel, cut: builders.Cut, report: StudentReport, score: Score | None) -> None:
        """Repair a student in place, and tell in the report what was cut.

        Args:
            student: as it was cut.
            cut: what it was made of.
            report: of the student.
            score: returns the scores of the cut student; None to leave them out.
        """
        section, layers = self.section, report.layers
        assert section is not None
        if layers is None:
            return  # random weights
        report.pruning = cut.facts(section)
        if section.repair:
            self._repair(student, cut, layers, report.pruning, score)
        logger.info(pruning_sentence(report.pruning))

    def _repair(
        self,
        student: PreTrainedModel,
        cut: builders.Cut,
        layers: list[int],
        facts: dict[str, Any],
        score: Score | None,
    ) -> None:
        if score is not None:
            facts["cut"] = score(student)
        for model in (student, cut.whole):
            model.to(self.run.args.device)
        batches = _Progress(self.batches(cut.whole, facts["rows"]), "repairing the student")
        facts["repaired_on"] = repair(student, cut.whole, layers, cut.kept.width, batches, _run)

    def batches(self, model: PreTrainedModel, rows: int) -> list[dict[str, Any]]:
        """Return batches of training rows, drawn the same way each time; the first ones of a stream."""
        data, kind, args = self.run.data, self.run.data.kind, self.run.args
        names = frozenset({kind.label_rows})
        collate = RowCollator(data.scored_by, RowSets(kind, names, names), forward_arguments(model) | kind.columns)
        drawn = _drawn(data.split.train, rows)
        loader: Any = DataLoader(drawn, batch_size=args.per_device_eval_batch_size, collate_fn=collate)
        return [send_to_device(batch, args.device) for batch in loader]


def _drawn(rows: Any, count: int) -> Any:
    if not hasattr(rows, "select") or not hasattr(rows, "__len__"):
        return list(islice(rows, count))
    chosen = np.random.default_rng(0).choice(len(rows), min(count, len(rows)), replace=False)
    return rows.select(np.sort(chosen))


def _run(model: PreTrainedModel, batch: Mapping[str, Any]) -> None:
    """Run the encoder alone: its heads are as they were."""
    known = forward_arguments(model) - {"labels"}
    model.base_model(**{name: value for name, value in batch.items() if name in known and isinstance(value, Tensor)})


@contextmanager
def _giving_logits(model: PreTrainedModel, kind: TaskKind) -> Iterator[None]:
    """Within this context, forwards of a model give its logits as those of training do."""
    recorder = Recorder(model, SignalRequest(logits=True), head_rows=kind.level == "token")
    try:
        yield
    finally:
        recorder.remove()


class _Progress:
    """Batches with a progress bar, on the main process."""

    def __init__(self, batches: list[dict[str, Any]], title: str):
        self.batches, self.title = batches, title

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(tqdm(self.batches, desc=self.title, unit="batch", disable=not is_main_process()))


def drawn_loss(logits: Tensor, kind: TaskKind, batch: Mapping[str, Any]) -> Tensor:
    """Return the sum over rows of −log p(y) of outputs y that are drawn from a model's own, up to a constant.

    Of numbers, scores and vectors f, p is normal around f with variance 1.

    Args:
        logits: as signals have them: (rows, classes), (rows, 1), (rows, length), or (rows, seq, 2) of spans.
        kind: of the task.
        batch: for the positions of spans.
    """
    logits = logits.float()
    if kind.output == "spans":
        hidden = ~batch["attention_mask"].bool()[..., None]
        both = logits.masked_fill(hidden, float("-inf")).transpose(1, 2).flatten(0, 1)
        return _cross_entropy(both)
    if kind.output == "distribution":
        return _cross_entropy(logits)
    if kind.output == "labels":
        drawn = torch.bernoulli(logits.detach().sigmoid())
        return F.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")
    return (logits * torch.randn_like(logits)).sum()


def _cross_entropy(logits: Tensor) -> Tensor:
    drawn = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)
    return F.cross_entropy(logits, drawn, reduction="sum")
