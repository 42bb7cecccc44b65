"""Students of a run: each is trained once and scored. Weights are kept of the run's own student alone."""

from __future__ import annotations

import copy
import gc
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import CONFIG_NAME

from distil_nlp.data import TransferSet
from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import Metrics, evaluator_of
from distil_nlp.evaluation.linear_probe import LinearProbe
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models import StudentReport, load_model
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.pipeline.joint.base import JointScheme, Judge
from distil_nlp.pipeline.joint.exits import EXITS, exit_name, load_exits, saved_exits
from distil_nlp.pipeline.kept_outputs import OUTPUTS, read_outputs, save_outputs
from distil_nlp.pipeline.predictor import Predictor
from distil_nlp.pipeline.pruning import Score, StudentPruner
from distil_nlp.pipeline.run_folder import STUDENT
from distil_nlp.pipeline.schemes import extensions_of
from distil_nlp.pipeline.teacher import earlier_teachers
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.formatting import plural
from distil_nlp.results.provenance import Provenance
from distil_nlp.teachers.curriculum import TeacherCurriculum
from distil_nlp.teachers.source import TeacherSource
from distil_nlp.training.downstream_probe import DownstreamProbe
from distil_nlp.training.fit import KEPT_BESIDE, Finished, fit
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.files import altered_files, read_json, write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

TRAINING = "training.json"
"""File with the record of a training, beside the student: a run that is stopped while scoring does not train again."""


@dataclass
class TrainedStudent:
    """A student's scores, its outputs on the evaluation splits, and the record of its training.

    Attributes:
        metrics: over all evaluation splits, see `metrics_of`.
        outputs: split → outputs.
        training: the record, see `fit`.
        exits: depth → split → outputs of the student's exits.
    """

    metrics: Metrics
    outputs: dict[str, Outputs]
    training: dict[str, Any]
    exits: dict[int, dict[str, Outputs]] = field(default_factory=dict)


@dataclass
class StudentRun:
    """Trains and scores one student.

    Attributes:
        recipe: the recipe of this student.
        objective: unbound, and not shared with other students.
        folder: for its checkpoints, its record and its outputs.
        args: training arguments.
        tokenizer: the student's, which is the teacher's unless they have other tokens.
        data: rows and collator.
        provenance: of this student.
        is_main: whether it is the run's own, whose weights are kept.
        reference: the teacher's outputs on the evaluation rows, once there are any.
        probe: scores the student while it trains; None without one.
    """

    recipe: Recipe
    objective: Objective
    folder: Path
    args: TrainingArguments
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet
    provenance: Provenance
    is_main: bool = True
    reference: dict[str, Outputs] | None = None
    probe: LinearProbe | None = None

    @property
    def predictor(self) -> Predictor:
        """What runs models on this student's evaluation rows."""
        return Predictor(self.recipe, self.args, self.data, self.reference)

    def build(self, teacher: PreTrainedModel, score: Score | None = None) -> tuple[PreTrainedModel, StudentReport]:
        """Return the initialised student and a report of the tensors copied into it, with the student's seed.

        Args:
            teacher: that it is made of.
            score: returns the scores of a pruned student before it is repaired; None to leave them out.
        """
        set_seed(self.args.seed)  # independent of what was trained before
        pruner = StudentPruner(self)
        cut = pruner.cut(teacher)
        set_seed(self.args.seed)  # and of whether importance and shape were on disk
        student, report = builders.student_from(self.recipe, teacher, self.tokenizer, self.data.head, cut)
        if cut is not None:
            pruner.repair(student, cut, report, score)
        return student, report

    def train(
        self, student: PreTrainedModel, teacher: PreTrainedModel, before: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Train a student, from the last complete checkpoint if there is one, into `student/`; return the record.

        Args:
            student: initialised.
            teacher: frozen by the trainer.
            before: called once the trainer is built, so that settings that it rejects leave no files.
        """
        scheme = scheme_of(self.recipe)
        trainer = self.trainer(student, teacher, scheme)
        before()
        probed = self._add_probe(trainer, teacher)
        trainer.accelerator.wait_for_everyone()

        def finish(model: PreTrainedModel) -> Finished:
            finished = scheme.finish(
                model, Judge(self.data.task, self.predictor.predict, self.predictor.predict_selection)
            )
            finished.record |= probed
            return finished

        record = fit(
            trainer,
            self.folder / STUDENT,
            self.tokenizer,
            title="training the student",
            record_file=self.folder / TRAINING,
            provenance=self.provenance,
            finish=finish,
        )
        del trainer
        gc.collect()  # it has reference cycles, which keep the optimiser in memory
        return record

    def _add_probe(self, trainer: DistillationTrainer, teacher: PreTrainedModel) -> dict[str, Any]:
        """Let the probe score the student while it trains; return what of the record is known before, {} without one.

        The first teacher of several is scored, once, by the main process.
        """
        if self.probe is None:
            return {}
        found, beside = self.probe.to_dict(), ""
        if self.args.process_index == 0:
            found["teacher"] = self.probe.accuracy(ensemble_members(teacher)[0])
            known = {"teacher": found["teacher"], "majority class": found["majority"]}
            values = ", ".join(f"{name} {value:.3f}" for name, value in known.items() if value is not None)
            beside = f" on {found['task']} ({values})"
        section: Any = self.recipe.evaluation.probe
        trainer.add_callback(DownstreamProbe(trainer, self.probe.accuracy, section.every, beside))
        return {"probe": found}

    def trainer(
        self, student: PreTrainedModel, teacher: PreTrainedModel, scheme: JointScheme | None = None
    ) -> DistillationTrainer:
        """Build the trainer of a student.

        Args:
            student: initialised.
            teacher: frozen by the trainer.
            scheme: that of the recipe, if its modules are needed after the training.

        Raises:
            UserError: for arguments that do not go together.
        """
        patience = self.recipe.evaluation.early_stopping_patience
        arguments = dict(
            model=student,
            teacher=self._source(student, teacher),
            objective=(scheme or scheme_of(self.recipe)).extend(self.objective, student, teacher, self.args.seed),
            cache=builders.teacher_cache(self.recipe),
            gradients_every=self.recipe.run.gradients_every,
            kernels=self.recipe.run.kernels,
            extensions=[*extensions_of(self.recipe, teacher).values()],
            **builders.augmentation_arguments(self.recipe, self.tokenizer, self.args.seed),
            args=self.args,
            train_dataset=self.training_rows,
            eval_dataset=self.data.split.selection,
            data_collator=builders.with_seed(self.data.collator, self.args.seed),
            compute_metrics=evaluator_of(self.data.kind).trainer_metrics(self.data.task),
            callbacks=[EarlyStoppingCallback(patience)] if patience else None,
        )
        try:
            return DistillationTrainer(**arguments)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                "training",
                "fields that Trainer takes together",
                reason,
            ) from error

    def _source(self, student: PreTrainedModel, teacher: PreTrainedModel) -> TeacherSource | PreTrainedModel:
        """Return who teaches: the student itself, the teacher and what it was on its way, or the teacher."""
        own = builders.self_teacher(self.recipe, student)
        if own is not None:
            return own
        earlier = earlier_teachers(self.recipe, self.data.read_by()) if self.objective.needs_teacher else []
        models = [self._in_its_dtype(model) for model in (*earlier, teacher)]
        encoding = self.data.encoding_of()
        if earlier:
            return TeacherCurriculum(models, encoding)
        return builders.source_of(self.recipe, models[0], encoding, self.data.vocabulary)

    def _in_its_dtype(self, teacher: PreTrainedModel) -> PreTrainedModel:
        """Return the teacher in the recipe's precision; another model where it is in another one."""
        dtype = builders.teacher_dtype(self.recipe)
        return teacher if teacher.dtype == dtype else copy.deepcopy(teacher).to(dtype)  # type: ignore[arg-type]

    @property
    def training_rows(self) -> Any:
        """The rows that the student is trained on."""
        return self.data.split.train if self._learns_unlabelled_rows() else self.data.labelled()

    def _learns_unlabelled_rows(self) -> bool:
        """Return whether there is anything to learn from rows without a label."""
        own = self.recipe.teacher.self
        return self.objective.needs_teacher and (own is None or own.kind != "last_epoch")

    def saved_record(self) -> dict[str, Any] | None:
        """Return the record of an interrupted run's training if its student is there as it was saved, else None.

        Raises:
            UserError: if that student was made of something else.
        """
        if not _is_model(self.folder / STUDENT):
            return None
        altered = altered_student(self.folder)
        if altered:
            names = ", ".join(altered)
            logger.info(f"{self.folder / STUDENT}: {names} is not as it was saved; the student is trained again")
            return None
        record = self._record()
        missing = [one["folder"] for one in saved_exits(record or {}) if not _is_model(self.folder / one["folder"])]
        if missing:
            logger.info(f"{self.folder}: no model in {', '.join(missing)}; the student is trained again")
            return None
        return record

    def _record(self) -> dict[str, Any] | None:
        """Return the record of a training that ended; None without a whole one.

        Raises:
            UserError: if it is of a student that was made of something else.
        """
        file = self.folder / TRAINING
        needed = {"steps": int, "max_steps": int, "history": list, "final_terms": dict}
        record = read_json(file, "the student is trained again", **needed)
        if record is not None:
            self.provenance.validate(record.get("provenance"), file)
        return record and {name: value for name, value in record.items() if name not in KEPT_BESIDE}

    def score_saved(self, training: dict[str, Any]) -> TrainedStudent:
        """Score the saved student, and its exits.

        Args:
            training: the record of its training.
        """
        outputs = self.predictor.predict(load_model(str(self.folder / STUDENT), self.data.head), "student")
        exits = {
            blocks: self.predictor.predict(model, f"exit after {plural(blocks, 'block')}")
            for blocks, model in load_exits(self.folder, training, self.data.head).items()
        }
        return TrainedStudent(metrics_of(self.data.task, outputs), outputs, training, exits)

    def keep_outputs(self, trained: TrainedStudent) -> None:
        """Write a student's outputs, and those of its exits."""
        if self.args.should_save:
            for blocks, outputs in trained.exits.items():
                save_outputs(self.folder / exit_outputs(blocks), outputs)
            save_outputs(self.folder / OUTPUTS, trained.outputs)

    def kept(self) -> TrainedStudent | None:
        """Return a student whose outputs were kept, with or without its weights; None if any are not there."""
        evaluation = self.data.split.evaluation
        outputs = read_outputs(self.folder / OUTPUTS, evaluation)
        training = outputs and self._record()
        if outputs is None or training is None:
            return None
        exits: dict[int, dict[str, Outputs]] = {}
        for blocks in (one["layers"] for one in saved_exits(training)):
            found = read_outputs(self.folder / exit_outputs(blocks), evaluation)
            if found is None:
                return None
            exits[blocks] = found
        return TrainedStudent(metrics_of(self.data.task, outputs), outputs, training, exits)

    def save_thresholds(self, trained: TrainedStudent) -> None:
        """Write `threshold` into config.json of the student and of its exits, where predictions have one."""
        _save_threshold(self.folder / STUDENT / CONFIG_NAME, trained.outputs)
        for one in saved_exits(trained.training):
            _save_threshold(self.folder / one["folder"] / CONFIG_NAME, trained.exits[one["layers"]])

    def train_and_score(self, teacher: PreTrainedModel, guide: PreTrainedModel) -> TrainedStudent:
        """Train a further student, score it and delete its weights; or read its outputs from disk.

        Args:
            teacher: that it is made of.
            guide: that it learns from.
        """
        kept = self.kept()
        if kept is not None:
            self.discard_weights()
            return kept
        training = self.saved_record()
        if training is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            training = self.train(self.build(teacher)[0], guide)
        trained = self.score_saved(training)
        self.keep_outputs(trained)
        self.discard_weights()
        return trained

    def discard_weights(self) -> None:
        """Delete a further student's weights and checkpoints."""
        if self.args.should_save:
            for folder in (self.folder / STUDENT, self.folder / EXITS, *self.folder.glob("checkpoint-*")):
                shutil.rmtree(folder, ignore_errors=True)


def exit_outputs(blocks: int) -> str:
    """Return the name of the file with an exit's outputs on the evaluation splits."""
    return f"outputs_{exit_name(blocks)}.npz"


def _save_threshold(config_file: Path, outputs: Mapping[str, Outputs]) -> None:
    threshold = next(iter(outputs.values())).threshold
    config = None if threshold is None else read_json(config_file, "it does not get the threshold of its predictions")
    if config is not None:
        write_atomically(config_file, json.dumps({**config, "threshold": threshold}, indent=2, sort_keys=True) + "\n")


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def altered_student(folder: Path) -> list[str]:
    """Return the weight files of a kept student that are not as they were saved; none where that is unknown."""
    record = read_json(folder / TRAINING, "the student cannot be compared with it", weights=dict)
    return altered_files(folder / STUDENT, record["weights"]) if record else []
