"""The students of a run: each seed's, and what they are compared with. Each is trained once; its outputs are kept."""

from __future__ import annotations

import copy
import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.evaluation.metrics import Metrics, metric_function, metrics_of
from distil_nlp.evaluation.predict import Outputs, predict
from distil_nlp.models import load_model
from distil_nlp.pipeline import builders as build
from distil_nlp.pipeline.builders.data import TransferSet
from distil_nlp.pipeline.run_folder import STUDENT
from distil_nlp.recipe import Recipe
from distil_nlp.training.checkpoints import last_complete_checkpoint, read_spent, warn_about_changed_processes
from distil_nlp.training.compile import compiled_graphs
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.environment import peak_memory_mib
from distil_nlp.utils.failures import enough_memory
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import say

TRAINING = "training.json"
"""What training took: kept beside the student, so that a run stopped while scoring need not train again."""
OUTPUTS = "outputs.npz"


@dataclass
class TrainedStudent:
    """What became of a variant."""

    metrics: Metrics
    outputs: dict[str, Outputs]
    training: dict[str, Any]


@dataclass
class StudentRun:
    """What trains and scores one variant: its recipe and the parts of the run."""

    recipe: Recipe
    folder: Path
    args: TrainingArguments
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet

    def predict(self, model: PreTrainedModel, what: str) -> dict[str, Outputs]:
        """What a model says of the evaluation rows; `what` tells the user whose turn it is."""
        say(f"scoring the {what} on {', '.join(self.data.split.evaluation)}")
        outputs = predict(
            model,
            self.data.head.kind,
            self.data.split.evaluation,
            self.data.collator,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            bf16=self.args.bf16,
        )
        for split, seen in outputs.items():
            broken = int((~np.isfinite(seen.predictions)).any(-1).sum())
            if broken:
                raise UserError(
                    f"expected finite outputs of the {what} on {split} / got NaN or infinity in {broken} of "
                    f"{len(seen.predictions)} rows / nothing can be learnt from them, or scored by them / take another "
                    "checkpoint, or float32 instead of bf16 or fp16"
                )
        return outputs

    def student(self, teacher: PreTrainedModel) -> tuple[PreTrainedModel, Any]:
        """(student, what was copied into it), by the variant's seed."""
        set_seed(self.args.seed)  # whatever was trained before
        return build.student_from(self.recipe, teacher, self.tokenizer, self.data.head)

    def train(
        self, student: PreTrainedModel, teacher: PreTrainedModel, before: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Trains a student into `student/`, or carries on from the last complete checkpoint; what it took.

        `before` is called once the trainer is built, so that what it refuses leaves no trace.
        """
        trainer = self.trainer(student, teacher)
        before()
        trainer.accelerator.wait_for_everyone()
        checkpoint = last_complete_checkpoint(self.folder)
        say(f"training the student{f', from {checkpoint.name} on' if checkpoint else ''}")
        graphs = compiled_graphs()
        if self.args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.spent_before = read_spent(checkpoint)
        if checkpoint:
            warn_about_changed_processes(checkpoint, self.args)
        with enough_memory(self.args):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        training = self.training(trainer, checkpoint)
        if self.args.torch_compile:
            training["compiled_graphs"] = compiled_graphs() - graphs
        self.save(trainer, training)
        del trainer
        gc.collect()  # it holds itself, and with it the optimiser
        return training

    def trainer(self, student: PreTrainedModel, teacher: PreTrainedModel) -> DistillationTrainer:
        patience, dtype = self.recipe.evaluation.early_stopping_patience, build.teacher_dtype(self.recipe)
        objective = build.objective_from(self.recipe, self.data.head.kind)
        parts = dict(
            model=student,
            teacher=teacher if teacher.dtype == dtype else copy.deepcopy(teacher).to(dtype),
            objective=objective,
            cache=build.teacher_cache(self.recipe),
            gradients_every=self.recipe.run.gradients_every,
            **build.augmentation_arguments(self.recipe, self.tokenizer, self.args.seed),
            args=self.args,
            train_dataset=self.data.split.train if objective.needs_teacher else self.data.labelled(),
            eval_dataset=self.data.split.selection,
            data_collator=build.with_seed(self.data.collator, self.args.seed),
            compute_metrics=None if self.data.head.kind == "mlm" else metric_function(self.data.task),
            callbacks=[EarlyStoppingCallback(patience)] if patience else None,
        )
        try:
            return DistillationTrainer(**parts)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"training: expected fields that Trainer takes together / got: {reason}") from error

    def training(self, trainer: DistillationTrainer, checkpoint: Path | None) -> dict[str, Any]:
        spent, best = trainer.spent(), trainer.state.best_model_checkpoint
        return {
            "seconds": round(spent["seconds"], 2),
            "tokens": spent["tokens"],
            "tokens_per_second": round(spent["tokens"] / spent["seconds"], 1),
            "steps": trainer.state.global_step,
            "max_steps": trainer.state.max_steps,
            "resumed_from": checkpoint.name if checkpoint else None,
            "peak_memory_mib": peak_memory_mib(self.args.device),
            "final_terms": trainer.last_terms,
            "best_checkpoint": best and Path(best).name,
            "history": _history(trainer.state.log_history),
        }

    def save(self, trainer: DistillationTrainer, training: dict[str, Any]) -> None:
        """`student/`: what plain transformers loads, whole or not at all."""
        state = trainer.student_state()
        student = trainer.detach()
        if self.args.should_save:
            partial = self.folder / f"{STUDENT}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            student.save_pretrained(partial, state_dict=state)
            _tokenizer_for(student, self.tokenizer).save_pretrained(partial)
            write_atomically(self.folder / TRAINING, json.dumps(training))
            shutil.rmtree(self.folder / STUDENT, ignore_errors=True)
            partial.rename(self.folder / STUDENT)
        trainer.accelerator.wait_for_everyone()

    def saved_record(self) -> dict[str, Any] | None:
        """What training took, if an interrupted run got as far as saving its student."""
        saved = self.folder / TRAINING
        is_there = saved.is_file() and (self.folder / STUDENT / "config.json").is_file()
        return json.loads(saved.read_text()) if is_there else None

    def scored(self, training: dict[str, Any]) -> TrainedStudent:
        """What is scored is the student that was saved."""
        outputs = self.predict(load_model(str(self.folder / STUDENT), self.data.head), "student")
        return TrainedStudent(metrics_of(self.data.task, outputs), outputs, training)

    def train_and_score(self, teacher: PreTrainedModel) -> TrainedStudent:
        """A further student of the run: trained, scored and put away, or read if an earlier start did that. Only its
        outputs stay."""
        if (self.folder / OUTPUTS).is_file():
            self.discard_weights()
            outputs = load_outputs(self.folder / OUTPUTS)
            training = json.loads((self.folder / TRAINING).read_text())
            return TrainedStudent(metrics_of(self.data.task, outputs), outputs, training)
        training = self.saved_record()
        if training is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            training = self.train(self.student(teacher)[0], teacher)
        trained = self.scored(training)
        if self.args.should_save:
            save_outputs(self.folder / OUTPUTS, trained.outputs)
        self.discard_weights()
        return trained

    def discard_weights(self) -> None:
        """Of a further student only what it said is of use."""
        if self.args.should_save:
            for folder in (self.folder / STUDENT, *self.folder.glob("checkpoint-*")):
                shutil.rmtree(folder, ignore_errors=True)


def save_outputs(path: Path, outputs: dict[str, Outputs]) -> None:
    """One file, there whole or not at all."""
    partial = path.with_name(f"partial-{path.name}")
    arrays = {f"{split}/{name}": value for split, seen in outputs.items() for name, value in vars(seen).items()}
    np.savez(partial, **arrays)
    partial.replace(path)


def load_outputs(path: Path) -> dict[str, Outputs]:
    with np.load(path) as arrays:
        splits = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {split: Outputs(arrays[f"{split}/predictions"], arrays[f"{split}/labels"]) for split in splits}


def _history(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """What was logged in training and evaluation: step, loss, terms, weights that change, metrics."""
    skipped = (
        "train_",
        "total_flos",
        "tokens_per_second",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
    )
    rows = [entry for entry in log if "loss" in entry or "eval_loss" in entry]
    return [{name: value for name, value in entry.items() if not name.startswith(skipped)} for entry in rows]


def _tokenizer_for(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The teacher's tokenizer; for DistilBERT without segments, which it does not take."""
    tokenizer = copy.deepcopy(tokenizer)
    if student.config.model_type == "distilbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return tokenizer
