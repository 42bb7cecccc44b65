"""Pruning before training: importance of the teacher's parts, on disk for other runs, and repair of what was cut."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import send_to_device, set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from distil_nlp.data.fingerprint import hash_json, hash_model
from distil_nlp.data.row_sets import RowCollator, RowSets
from distil_nlp.errors import UserError
from distil_nlp.models import StudentReport
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.pruning import Importance, measure_importance, parameter_axes, repair
from distil_nlp.models.pruning.shapes import Shape
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.planning.step_probe import few_steps
from distil_nlp.pipeline.shape_search import Trial, output_distance, search_shape
from distil_nlp.recipe.sections import BudgetSection
from distil_nlp.reporting.pruning import pruning_sentence, search_sentence
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind
from distil_nlp.utils.files import atomic_file, write_atomically
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)

Score = Callable[[PreTrainedModel], dict[str, Any]]
_HELD = 512
"""Training rows on which shapes are compared."""


@dataclass
class StudentPruner:
    """Makes what a student is cut from, and repairs the student.

    Attributes:
        run: of the student, a `StudentRun`.
    """

    run: Any

    def __post_init__(self) -> None:
        self.section = builders.pruning_of(self.run.recipe.student)
        self.search: dict[str, Any] = {}

    def cut(self, teacher: PreTrainedModel) -> builders.Cut | None:
        """Return what the student is made of; None where it has whole layers."""
        section = self.run.recipe.student
        if self.section is None:
            return None
        whole = builders.with_vocabulary(self.run.recipe, ensemble_members(teacher)[0], self.run.tokenizer)
        any_parts = builders.cut_from(section, whole, None)  # which shows whether the model can be cut
        if section.budget is None and section.layers == "random":
            return any_parts
        importance = self.importance(whole)
        shape = None if section.budget is None else self.shape(section.budget, teacher, whole, importance)
        return builders.cut_from(section, whole, importance, shape)

    def shape(
        self, budget: BudgetSection, teacher: PreTrainedModel, whole: PreTrainedModel, importance: Importance
    ) -> Shape:
        """Return the shape for a budget: from disk, or searched for and kept there.

        Raises:
            UserError: on several processes, which would not find the same times.
        """
        learnt = [getattr(self.run.recipe, name).model_dump(mode="json") for name in ("objective", "balance")]
        key = hash_json([self._key(whole, 0), budget.model_dump(), learnt])  # one shape for all seeds and baselines
        file = self._file("shape", key, "json")
        if not file.is_file():
            if PartialState().num_processes > 1:
                raise UserError(
                    "student.budget",
                    f"one process, or the shape that one has found in {file.parent}",
                    f"{PartialState().num_processes} processes",
                    why="each would find other times",
                    fix="start it on one process until the student is trained, then go on with all",
                )
            found = search_shape(budget, whole, importance, self._trial(teacher, whole, importance))
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(found, indent=2) + "\n")
        self.search = json.loads(file.read_text())
        logger.info(search_sentence(self.search))
        return Shape(*(self.search["chosen"][key] for key in ("layers", "heads", "units")))

    def _trial(self, teacher: PreTrainedModel, whole: PreTrainedModel, importance: Importance) -> Trial:
        """Return what trains a shape for some steps, and measures how far it is from the teacher then."""
        run, kind = self.run, self.run.data.kind
        held = self.batches(whole, _HELD, seed=1)

        def try_shape(shape: Shape, steps: int) -> float:
            set_seed(run.args.seed)
            cut = builders.cut_from(run.recipe.student, whole, importance, shape)
            assert cut is not None
            student, report = builders.student_from(run.recipe, teacher, run.tokenizer, run.data.head, cut)
            self.repair(student, cut, report, None)
            with TemporaryDirectory() as folder:
                args = few_steps(run.args, folder, steps, run.args.per_device_train_batch_size)
                short = replace(run, args=args, objective=copy.deepcopy(run.objective), probe=None)
                short.trainer(student, teacher).train()
            return self._distance(student, whole, held, kind)

        return try_shape

    @torch.no_grad()
    def _distance(
        self, student: PreTrainedModel, whole: PreTrainedModel, batches: list[dict[str, Any]], kind: TaskKind
    ) -> float:
        """Return the mean distance of a student's outputs to the teacher's."""
        total, rows, logits = 0.0, 0, []
        for model in (student, whole):
            model.to(self.run.args.device).eval()
            with _giving_logits(model, kind):
                logits.append([forward_with_signals(model, batch, batch["rows"]).logits for batch in batches])
        for own, theirs, batch in zip(*logits, batches, strict=True):
            total += float(output_distance(own, theirs, kind, batch))
            rows += len(own)
        return total / max(rows, 1)

    def importance(self, model: PreTrainedModel) -> Importance:
        """Return the importance of a model's parts: from disk, or measured by the first process and kept there."""
        section = self.section
        assert section is not None
        seed = self.run.args.seed if section.importance == "random" else 0
        file = self._file(section.importance, self._key(model, seed), "safetensors")
        with PartialState().main_process_first():
            if not file.is_file():
                found = self._measured(model, seed)
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(file) as partial:
                    save_file({name: value.contiguous() for name, value in found.tensors().items()}, partial)
        return Importance(**load_file(file))

    def _key(self, model: PreTrainedModel, seed: int) -> str:
        """Return a hash of what importance follows from."""
        section = self.section
        assert section is not None
        rows = self.run.provenance.training_rows
        return hash_json([hash_model(model), rows, section.rows, section.importance, seed])

    def _file(self, what: str, key: str, ending: str) -> Path:
        assert self.section is not None
        return Path(self.section.folder) / f"{self.run.data.task}-{what}-{key[:16]}.{ending}"

    def _measured(self, model: PreTrainedModel, seed: int) -> Importance:
        section, kind = self.section, self.run.data.kind
        assert section is not None
        model.to(self.run.args.device)
        title, hidden = f"importance by {section.importance}", not is_main_process()
        batches = tqdm(self.batches(model, section.rows), desc=title, unit="batch", disable=hidden)

        def loss(batch: Mapping[str, Any]) -> Tensor:
            return drawn_loss(forward_with_signals(model, batch, batch["rows"]).logits, kind, batch)

        with _giving_logits(model, kind):
            return measure_importance(model, parameter_axes(model), batches, loss, section.importance, seed=seed)

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
        report.pruning = cut.facts(section) | ({"search": self.search} if self.search else {})
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
        batches = self.batches(cut.whole, facts["rows"])
        facts["repaired_on"] = repair(student, cut.whole, layers, cut.kept.width, batches, _run, _shown)

    def batches(self, model: PreTrainedModel, rows: int, seed: int = 0) -> list[dict[str, Any]]:
        """Return batches of training rows, drawn the same way each time; the first ones of a stream."""
        data, kind, args = self.run.data, self.run.data.kind, self.run.args
        names = frozenset({kind.label_rows})
        collate = RowCollator(data.scored_by, RowSets(kind, names, names), forward_arguments(model) | kind.columns)
        drawn = _drawn(data.split.train, rows, seed)
        loader: Any = DataLoader(drawn, batch_size=args.per_device_eval_batch_size, collate_fn=collate)
        return [send_to_device(batch, args.device) for batch in loader]


def _drawn(rows: Any, count: int, seed: int) -> Any:
    if not hasattr(rows, "select") or not hasattr(rows, "__len__"):
        return list(islice(rows, count))
    chosen = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False)
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


def _shown(places: Sequence[Any]) -> Iterable[Any]:
    """Return projections with a progress bar, on the main process."""
    return tqdm(places, desc="repairing the student", unit="projection", disable=not is_main_process())


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
