"""What happens in which order: data, teacher, student, training, scores, results. What is done is not done again."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp import build
from distil_nlp.build import TransferSet
from distil_nlp.console import say
from distil_nlp.errors import UserError
from distil_nlp.evaluation import (
    headline,
    majority_metrics,
    metric_function,
    metric_names,
    retention,
    retention_above_majority,
    score,
    unigram_metrics,
)
from distil_nlp.folder import RESULTS, STUDENT, claim, look_at
from distil_nlp.guard import last_complete_checkpoint, refuse_arguments, spent_until
from distil_nlp.models import StudentReport, load_model, load_tokenizer, size_of
from distil_nlp.recipe import Recipe
from distil_nlp.results import environment, peak_memory_mib, write_atomically, write_results
from distil_nlp.summary import summary_table
from distil_nlp.teacher import finetuned_teacher
from distil_nlp.terms import Shape
from distil_nlp.trainer import DistillationTrainer

TRAINING = "training.json"
"""What training took: kept beside the student, so that a run stopped while scoring need not train again."""


def distil(recipe: Recipe, recipe_name: str) -> Path:
    """A whole run, or the rest of one: returns the path of `results.json`.

    Raises:
        UserError: for everything the user can mend.
    """
    folder = build.output_folder(recipe, recipe_name)
    args = _arguments(recipe, folder)
    state = look_at(folder, recipe)
    if state == "finished":
        say(f"{folder}: this run is finished; run.overwrite=true would start it again")
        return folder / RESULTS
    tokenizer = load_tokenizer(recipe.teacher.name, recipe.teacher.revision)
    with args.main_process_first(desc="data"):
        data = build.transfer_set(recipe, tokenizer, args)
    teacher = _teacher(recipe, data, tokenizer)
    set_seed(args.seed)  # whether or not the teacher was trained just now
    student, report = build.student_from(recipe, teacher, tokenizer, data.head)
    say(str(report))
    build.check_student(student, recipe, tokenizer)
    objective = build.objective_from(recipe.objective, data.head.kind)
    objective.bind(Shape.of(teacher.config), Shape.of(student.config))  # what does not fit is said before scoring
    run = _Run(recipe, folder, args, tokenizer, data, teacher, student, report)
    floor, teacher_metrics, initial_metrics = run.floor(), run.score(teacher, "teacher"), run.score(student, "copy")
    sizes = {"teacher": size_of(teacher).to_dict(), "student": size_of(student).to_dict()}
    training = run.earlier_training() if state == "unfinished" else None
    if training is None:
        trainer = run.trainer()
        if args.should_save:
            claim(folder, recipe)
        training = run.train(trainer)
        run.save(trainer, training)
    student = load_model(str(folder / STUDENT), data.head)  # what is scored is what was saved
    student_metrics = run.score(student, "student")
    results = run.results(sizes, floor, teacher_metrics, initial_metrics, student_metrics, training)
    if args.should_save:
        write_results(folder / RESULTS, results)
    say(summary_table(results, data.task))
    say(f"student: {folder / STUDENT}\nresults: {folder / RESULTS}")
    return folder / RESULTS


def _arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    """The student's training arguments, checked against the rest of the recipe before anything is loaded."""
    args = build.training_arguments(recipe.training, folder, recipe)
    refuse_arguments(args)
    build.refuse_keys_without_effect(recipe)
    objective = build.objective_from(recipe.objective, build.task_kind(recipe))
    if recipe.hub.push:
        raise UserError(
            "hub.push: expected false / got true / this version does not push / after the run: hf upload "
            f"{recipe.hub.repo_id or 'me/my-student'} {folder / STUDENT}"
        )
    if recipe.data.streaming and args.max_steps <= 0:
        raise UserError(
            "training.max_steps: expected a number of steps for a streamed corpus / got none / a stream has no "
            "length, so nothing would tell when to stop / set training.max_steps"
        )
    if recipe.evaluation.early_stopping_patience and not args.load_best_model_at_end:
        raise UserError(
            "evaluation.early_stopping_patience: expected training.load_best_model_at_end=true / got false / the "
            "last checkpoint would be kept, not the best / set it, with eval_strategy and save_strategy alike"
        )
    known = {"loss", *objective.names, *metric_names(recipe.data.task)}
    best = args.metric_for_best_model and args.metric_for_best_model.removeprefix("eval_")
    if best and best not in known:
        raise UserError(
            f"training.metric_for_best_model: expected one of {', '.join(sorted(known))} / got {best} / no evaluation "
            "would have it / choose one of those"
        )
    sources = (recipe.teacher.name, recipe.student.name, recipe.data.path)
    inside = [name for name in sources if name and _is_inside(name, folder)]
    if inside:
        raise UserError(
            f"training.output_dir: expected a folder apart from what the run reads / got {folder}, which holds "
            f"{', '.join(inside)} / it would be overwritten / name another folder"
        )
    return args


def _is_inside(name: str, folder: Path) -> bool:
    """Whether a local path that a recipe names lies in the output folder."""
    return Path(name).exists() and Path(name).resolve().is_relative_to(folder.resolve())


def _teacher(recipe: Recipe, data: TransferSet, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The teacher: fine-tuned first if the recipe says so, else as it is."""
    if recipe.teacher.finetune is None:
        return load_model(recipe.teacher.name, data.head, revision=recipe.teacher.revision)
    teacher, is_new = finetuned_teacher(recipe, data, tokenizer)
    say(f"teacher: {recipe.teacher.name}, {'fine-tuned now' if is_new else 'fine-tuned by an earlier run'}")
    return teacher


@dataclass
class _Run:
    """The parts of one run, and the steps that use them."""

    recipe: Recipe
    folder: Path
    args: TrainingArguments
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet
    teacher: PreTrainedModel
    student: PreTrainedModel
    report: StudentReport

    def score(self, model: PreTrainedModel, what: str) -> dict[str, float]:
        say(f"scoring the {what} on {', '.join(self.data.split.evaluation)}")
        return score(
            model,
            self.data.task,
            self.data.head.kind,
            self.data.split.evaluation,
            self.data.collator,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            bf16=self.args.bf16,
        )

    def floor(self) -> dict[str, float]:
        """What one gets without a model: the commonest class, or token frequencies."""
        rows = next(iter(self.data.split.evaluation.values()))
        if self.data.head.kind == "mlm":
            return unigram_metrics(self.data.split.train, rows, self.data.collator)
        return majority_metrics(self.data.task, self.data.split.train["labels"], rows["labels"])

    def trainer(self) -> DistillationTrainer:
        patience = self.recipe.evaluation.early_stopping_patience
        parts = dict(
            model=self.student,
            teacher=self.teacher.to(build.teacher_dtype(self.recipe)),
            objective=build.objective_from(self.recipe.objective, self.data.head.kind),
            args=self.args,
            train_dataset=self.data.split.train,
            eval_dataset=self.data.split.selection,
            data_collator=self.data.collator,
            compute_metrics=None if self.data.head.kind == "mlm" else metric_function(self.data.task),
            callbacks=[EarlyStoppingCallback(patience)] if patience else None,
        )
        try:
            return DistillationTrainer(**parts)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"training: expected fields that Trainer takes together / got: {reason}") from error

    def train(self, trainer: DistillationTrainer) -> dict[str, Any]:
        """Trains, or carries on from the last complete checkpoint; what it took."""
        checkpoint = last_complete_checkpoint(self.folder)
        say(f"training the student{f', from {checkpoint.name} on' if checkpoint else ''}")
        trainer.spent_before = spent_until(checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        spent = trainer.spent()
        return {
            "seconds": round(spent["seconds"], 2),
            "tokens": spent["tokens"],
            "tokens_per_second": round(spent["tokens"] / spent["seconds"], 1),
            "steps": trainer.state.global_step,
            "resumed_from": checkpoint.name if checkpoint else None,
            "peak_memory_mib": peak_memory_mib(self.args.device),
            "final_terms": trainer.last_terms,
            "best_checkpoint": trainer.state.best_model_checkpoint and Path(trainer.state.best_model_checkpoint).name,
        }

    def earlier_training(self) -> dict[str, Any] | None:
        """What training took, if an interrupted run got as far as saving its student."""
        saved = self.folder / TRAINING
        is_there = saved.is_file() and (self.folder / STUDENT / "config.json").is_file()
        return json.loads(saved.read_text()) if is_there else None

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

    def results(
        self,
        sizes: dict[str, dict[str, float]],
        floor: dict[str, float],
        teacher: dict[str, float],
        initial: dict[str, float],
        student: dict[str, float],
        training: dict[str, Any],
    ) -> dict[str, Any]:
        task = self.data.task
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "environment": environment(self.args.seed, self.args.device, self.args.world_size),
            "task": task,
            "headline": headline(task),
            "teacher": {**sizes["teacher"], "metrics": teacher},
            "student": {
                **sizes["student"],
                "metrics": student,
                "initialisation": self.report.to_dict(),
            },
            "baselines": {"majority": {"metrics": floor}, "copied_only": {"metrics": initial}},
            "retention": retention(student, teacher, task),
            "retention_above_majority": retention_above_majority(student, teacher, floor, task),
            "training": training,
        }


def _tokenizer_for(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The teacher's tokenizer; for DistilBERT without segments, which it does not take."""
    tokenizer = copy.deepcopy(tokenizer)
    if student.config.model_type == "distilbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return tokenizer
