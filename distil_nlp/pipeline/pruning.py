"""Pruning before training: importance of the teacher's parts, on disk for other runs, and repair of what was cut."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import send_to_device, set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.data.fingerprint import hash_json, hash_model
from distil_nlp.data.row_sets import sample_rows
from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import scoring_collator
from distil_nlp.models import StudentReport
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.pruning import Importance, measure_importance, parameter_axes, repair
from distil_nlp.models.pruning.shapes import Shape
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.outputs import drawn_loss, output_distance
from distil_nlp.pipeline.planning.batches import steps_of
from distil_nlp.pipeline.planning.step_probe import few_steps
from distil_nlp.pipeline.shape_search import Trial, search_shape
from distil_nlp.recipe.sections import BudgetSection
from distil_nlp.reporting.pruning import pruning_sentence, search_sentence
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_arguments, forward_with_signals
from distil_nlp.tasks import TaskKind
from distil_nlp.training.sharding import Sharding
from distil_nlp.utils.environment import device_name
from distil_nlp.utils.files import atomic_file, write_atomically
from distil_nlp.utils.logging import get_logger, is_main_process
from distil_nlp.utils.processes import from_main_process

logger = get_logger(__name__)

Score = Callable[[PreTrainedModel], dict[str, Any]]
_HELD = 512
"""Training rows on which shapes are compared."""
_TRIAL_FIELDS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "max_grad_norm", "adam_beta1",
    "adam_beta2", "adam_epsilon",
)  # fmt: skip
"""Settings of the training that decide which shape is nearest to the teacher after a few steps."""


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
        if section.budget is None and section.layers == "random":
            return builders.cut_from(section, whole, None)
        importance = self.importance(whole)
        shape = None if section.budget is None else self.shape(section.budget, teacher, whole, importance)
        return builders.cut_from(section, whole, importance, shape)

    def shape(
        self, budget: BudgetSection, teacher: PreTrainedModel, whole: PreTrainedModel, importance: Importance
    ) -> Shape:
        """Return the shape for a budget: from disk, or searched for and kept there.

        Raises:
            UserError: if it is to be searched for where FSDP or DeepSpeed divide the student.
        """
        key = hash_json([self._key(whole, 0), budget.model_dump(), self._searched_with(budget)])
        file = self._file("shape", key, "json")
        known = from_main_process(lambda: file.read_text() if file.is_file() else None)
        if known is None:
            self._require_whole_students(file.parent)
            trial, own = self._trial(teacher, whole, importance), ensemble_members(teacher)[0]
            found = search_shape(budget, whole, importance, trial, own)
            known = json.dumps(found, indent=2) + "\n"
            if is_main_process():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, known)
        self.search = json.loads(known)
        logger.info(search_sentence(self.search))
        return Shape(*(self.search["chosen"][key] for key in ("layers", "heads", "units")))

    def _searched_with(self, budget: BudgetSection) -> list[Any]:
        """Return what a shape follows from besides the model: not the seed, so that all students have one shape."""
        recipe, args = self.run.recipe, self.run.args
        assert self.section is not None
        learnt = [getattr(recipe, name).model_dump(mode="json") for name in ("objective", "balance")]
        trained = {name: value for name, value in recipe.training.items() if name in _TRIAL_FIELDS}
        timed = [device_name(args.device), budget.threads or torch.get_num_threads()]
        return [learnt, trained, self.section.repair, *(timed if budget.limit[0].startswith("latency") else [])]

    def _require_whole_students(self, folder: Path) -> None:
        """Raise UserError where FSDP or DeepSpeed divide the student."""
        if Sharding.of(self.run.args):
            raise UserError(
                "student.budget",
                f"one process or DDP, or the shape that these have found in {folder}",
                "FSDP or DeepSpeed",
                why="students of several shapes are tried one after the other",
                fix="start it without until the shape is found, then go on",
            )

    def _trial(self, teacher: PreTrainedModel, whole: PreTrainedModel, importance: Importance) -> Trial:
        """Return what trains a shape for some steps, and measures how far it is from the teacher then."""
        recipe = self.run.recipe.model_copy(deep=True)
        recipe.evaluation.early_stopping_patience = None
        run, held = replace(self.run, recipe=recipe), list(self.batches(whole, _HELD, seed=1))
        warmup = _warmup_share(run.args, run.training_rows, run.data.group_size)
        wanted = self._logits(whole if recipe.student.vocabulary else teacher, held)  # an ensemble's, where it teaches

        def try_shape(shape: Shape, steps: int) -> float:
            set_seed(run.args.seed)
            cut = builders.cut_from(run.recipe.student, whole, importance, shape)
            assert cut is not None
            student, report = builders.student_from(run.recipe, teacher, run.tokenizer, run.data.head, cut)
            logger.info(f"trying {shape} for {steps} steps")
            self.repair(student, cut, report, None, is_kept=False)
            with TemporaryDirectory() as folder:
                args = few_steps(run.args, folder, steps, run.args.per_device_train_batch_size)
                args.warmup_steps = warmup
                short = replace(run, args=args, objective=copy.deepcopy(run.objective), probe=None)
                trainer = short.trainer(student, teacher)
                try:
                    trainer.train()
                finally:
                    trainer.detach()
                    del trainer
                    gc.collect()  # its cycles keep the optimizer's moments
            return from_main_process(lambda: self._distance(student, wanted, held))

        return try_shape

    def _distance(self, student: PreTrainedModel, wanted: list[Tensor], batches: list[dict[str, Any]]) -> float:
        """Return the mean distance of a student's outputs to the teacher's."""
        found = self._logits(student, batches)
        distances = [
            float(output_distance(own, theirs, self.run.data.kind, batch))
            for own, theirs, batch in zip(found, wanted, batches, strict=True)
        ]
        return sum(distances) / max(sum(map(len, found)), 1)

    @torch.no_grad()
    def _logits(self, model: PreTrainedModel, batches: list[dict[str, Any]]) -> list[Tensor]:
        model.to(self.run.args.device).eval()
        with _giving_logits(model, self.run.data.kind):
            return [forward_with_signals(model, batch, batch["rows"]).logits for batch in batches]

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
        builders.cut_from(self.run.recipe.student, model, None)  # which shows whether the model can be cut
        model.to(self.run.args.device)
        title, hidden = f"importance by {section.importance}", not is_main_process()
        batches = tqdm(list(self.batches(model, section.rows)), desc=title, unit="batch", disable=hidden)

        def loss(batch: Mapping[str, Any]) -> Tensor:
            return drawn_loss(forward_with_signals(model, batch, batch["rows"]).logits, kind, batch)

        with _giving_logits(model, kind):
            return measure_importance(model, parameter_axes(model), batches, loss, section.importance, seed=seed)

    def repair(
        self,
        student: PreTrainedModel,
        cut: builders.Cut,
        report: StudentReport,
        score: Score | None,
        is_kept: bool = True,
    ) -> None:
        """Repair a student in place, and tell in the report what was cut.

        Args:
            student: as it was cut.
            cut: what it was made of.
            report: of the student.
            score: returns the scores of the cut student; None to leave them out.
            is_kept: whether it is the student, not one that is tried for a while.
        """
        section, layers = self.section, report.layers
        assert section is not None
        if layers is None:
            return  # random weights
        report.pruning = cut.facts(section) | ({"search": self.search} if self.search else {})
        if section.repair:
            self._repair(student, cut, layers, report.pruning, score)
        if is_kept:
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

    def batches(self, model: PreTrainedModel, rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Yield batches of training rows, drawn the same way each time; the first ones of a stream."""
        data, args = self.run.data, self.run.args
        collate = scoring_collator(model, data.kind, data.scored_by)
        train: Any = data.split.train
        drawn: Any = sample_rows(train, rows, seed) if hasattr(train, "select") else list(islice(train, rows))
        for batch in DataLoader(drawn, batch_size=args.per_device_eval_batch_size, collate_fn=collate):
            yield send_to_device(batch, args.device)


def _warmup_share(args: TrainingArguments, rows: Any, group_size: int | None) -> float:
    """Return the share of the training in which the learning rate rises, for a trial of fewer steps."""
    if args.warmup_steps < 1:
        return float(args.warmup_steps)
    return float(min(args.warmup_steps / steps_of(args, rows, group_size), 0.99))


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
