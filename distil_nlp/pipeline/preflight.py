"""Checks of a run before data and models are loaded: settings that contradict each other."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from distil_nlp.errors import UserError, shown
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.metrics import metric_names
from distil_nlp.export.packages import require_export_packages
from distil_nlp.hub import check_repository
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.chain import validate_chain
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.pipeline.links import chain_of
from distil_nlp.pipeline.other_tokens import validate_tokens
from distil_nlp.pipeline.peek import peek_encoder
from distil_nlp.pipeline.plan import EQUAL_COMPUTE, NO_DISTILLATION, PLAIN, RunPlan, sources, student_seeds
from distil_nlp.pipeline.schemes import schemes_of
from distil_nlp.pipeline.signal_request import student_request
from distil_nlp.pipeline.teacher import finetuning_fields
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.validate import validate_no_unused_keys
from distil_nlp.training.checks import (
    validate_arguments,
    validate_augmentation,
    validate_cache_support,
    validate_checkpointing,
    validate_double_backward,
    validate_sharding,
)
from distil_nlp.training.rehearsal import rehearse, require_checkpointing
from distil_nlp.training.sharding import Sharding
from distil_nlp.utils.environment import cpu_cores
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)


def validate_plan(plan: RunPlan) -> None:
    """Raise UserError for settings at which a run would fail later, or that it would silently ignore."""
    recipe = plan.recipe
    validate_arguments(plan.args)
    validate_no_unused_keys(recipe, plan.task.kind)
    builders.validate_description(recipe.student)
    scheme_of(recipe).validate(plan)
    _check_lengths(plan)
    _check_choice_of_checkpoint(plan)
    _check_label_learning(plan)
    _check_baselines(recipe)
    links = chain_of(recipe)
    if links:
        validate_chain(plan, links)
    _check_spans(recipe)
    _check_masking(plan)
    _check_probe(plan)
    _check_cache(recipe)
    for scheme in schemes_of(recipe):
        scheme.check(plan)
    validate_cache_support(plan.objective, recipe.teacher.cache)
    validate_augmentation(plan.objective, dict(recipe.data.augmentation), recipe.teacher.cache)
    validate_tokens(plan)
    if recipe.export.onnx:
        require_export_packages()
    _check_hub(recipe)
    _check_folder(recipe, plan.folder)
    _rehearse(plan)
    if recipe.multitask.task in (None, *recipe.multitask.tasks[:1]):
        _warn_idle_cores(plan.args)


def _rehearse(plan: RunPlan) -> None:
    """Take a step of a tiny model with the arguments of the student, and with those of the teacher."""
    recipe = plan.recipe
    has_metrics = evaluator_of(plan.task.kind).trainer_metrics(recipe.data.task) is not None

    def key(name: str) -> str:
        own = recipe.teacher.finetune is not None and name in recipe.teacher.finetune
        return f"teacher.finetune.{name}" if own else f"training.{name}"

    def build(fields: dict[str, Any]) -> TrainingArguments:
        return builders.training_arguments(fields, plan.folder, recipe, key)

    rehearse(recipe.training, partial(builders.training_arguments, folder=plan.folder, recipe=recipe), has_metrics)
    _check_checkpointing(plan)
    _check_signals(plan)
    if recipe.teacher.finetune is not None:
        rehearse(finetuning_fields(recipe), build, has_metrics, key)


def _check_checkpointing(plan: RunPlan) -> None:
    """Raise UserError for checkpointing of activations in a family that has none; one that cannot be looked at passes.

    The weights are not read, nor is memory taken: the model is a shell of its first layer.
    """
    recipe, args = plan.recipe, plan.args
    if not args.activation_checkpointing:
        return
    where = "training." + next((name for name in recipe.training if name.endswith("checkpointing")), "")
    for section in (recipe.teacher, recipe.student):
        shell = None if section.name is None else peek_encoder(section.name, section.revision)
        if shell is not None:
            require_checkpointing(shell, args, where)


def _check_signals(plan: RunPlan) -> None:
    """Raise UserError for arguments under which terms would have no gradient; what cannot be looked at passes."""
    request = student_request(plan)
    if request is None:
        return
    name = next((name for name in plan.recipe.training if name.endswith("checkpointing_kwargs")), "")
    validate_checkpointing(plan.args, request, f"training.{name}")
    validate_double_backward(plan.args, request)
    validate_sharding(request, Sharding.of(plan.args))


def _check_lengths(plan: RunPlan) -> None:
    if plan.recipe.data.streaming and plan.args.max_steps <= 0:
        raise UserError(
            "training.max_steps",
            "a number of steps for a streamed corpus",
            "none",
            why="a stream has no length, so nothing would tell when to stop",
            fix="set training.max_steps",
        )


def _check_choice_of_checkpoint(plan: RunPlan) -> None:
    recipe, args = plan.recipe, plan.args
    if recipe.evaluation.early_stopping_patience and not args.load_best_model_at_end:
        raise UserError(
            "evaluation.early_stopping_patience",
            "training.load_best_model_at_end=true",
            "false",
            why="the last checkpoint would be kept, not the best",
            fix="set it, with eval_strategy and save_strategy alike",
        )
    evaluated = [term.name for term in plan.objective.terms if not term.compares_passes]
    terms = ["hard_label"] if NO_DISTILLATION in recipe.evaluation.baselines else evaluated
    known = {"loss", *terms, *metric_names(recipe.data.task)}
    best = args.metric_for_best_model and args.metric_for_best_model.removeprefix("eval_")
    if best and best not in known:
        raise UserError(
            "training.metric_for_best_model",
            f"one of {', '.join(sorted(known))}",
            shown(best),
            why="no evaluation would have it",
            fix="choose one of those",
        )


def _check_label_learning(plan: RunPlan) -> None:
    """Raise UserError for what learns from labels, or mixes teachers, where the kind of task has no such thing."""
    recipe, kind = plan.recipe, plan.task.kind
    if kind.learns_labels:
        return
    learning = {
        "teacher.finetune": recipe.teacher.finetune is not None,
        f"evaluation.baselines={NO_DISTILLATION}": NO_DISTILLATION in recipe.evaluation.baselines,
        "teacher.self": recipe.teacher.self is not None,
        "teacher.ensemble": bool(recipe.teacher.ensemble),
    }
    for key, is_used in learning.items():
        if is_used:
            raise UserError(
                key.partition("=")[0],
                f"none for {kind.title}",
                key.partition("=")[2] or "some",
                why="the vectors of several teachers lie in different spaces"
                if key == "teacher.ensemble"
                else "nothing is trained on labels: scores of pairs are for evaluation alone",
                fix="take one teacher"
                if key == "teacher.ensemble"
                else "leave it out; a teacher can be trained with sentence-transformers before",
            )


def _check_baselines(recipe: Recipe) -> None:
    if recipe.teacher.reseed and recipe.teacher.finetune is None:
        raise UserError(
            "teacher.reseed",
            "a teacher that is fine-tuned",
            "teacher.finetune=null",
            why="it would be the same for all seeds",
            fix="set teacher.finetune={} or leave reseed out",
        )
    if recipe.teacher.reseed and recipe.student.budget is not None and len(student_seeds(recipe)) > 1:
        raise UserError(
            "teacher.reseed",
            "false with student.budget and several seeds",
            "true",
            why="a shape is found for one teacher, and seeds of several shapes do not compare",
            fix="leave reseed out, or set student.num_layers and student.pruning to the shape that one seed has found",
        )
    has_random = "random_init" in recipe.evaluation.baselines
    if has_random and (recipe.student.name is not None or recipe.student.layers == "random"):
        got = recipe.student.name or "student.layers=random"
        raise UserError(
            "evaluation.baselines",
            "random_init for a student copied from the teacher",
            got,
            why="there is no such student to compare with",
            fix="leave random_init out",
        )
    without = [name for name in recipe.evaluation.baselines if name in (PLAIN, EQUAL_COMPUTE)]
    if without and not schemes_of(recipe):
        raise UserError(
            "evaluation.baselines",
            f"{', '.join(without)} for a recipe with a training scheme",
            "none",
            why="the student is distilled plainly, and there is nothing to compare it with",
            fix="leave it out",
        )


def _check_masking(plan: RunPlan) -> None:
    """Raise UserError for what learns from masked tokens where none is masked."""
    recipe, masking = plan.recipe, plan.recipe.data.masking
    if "masking" not in plan.task.kind.data_keys or masking.probability:
        return
    terms = [f"objective.{term.name}" for term in plan.objective.terms if term.reads_masked_tokens]
    terms += ["teacher.finetune"] if recipe.teacher.finetune is not None else []
    terms += [f"the baseline {NO_DISTILLATION}"] if NO_DISTILLATION in recipe.evaluation.baselines else []
    if terms:
        raise UserError(
            "data.masking.probability",
            f"more than 0 for {', '.join(terms)}",
            "0",
            why="no token is masked, so that there is nothing for them to learn from",
            fix="set rows=all (or a fraction) for terms that have it, leave the others out, or mask tokens",
        )


def _check_spans(recipe: Recipe) -> None:
    """Raise UserError for settings of masking that spans have no use for."""
    masking = recipe.data.masking
    if not masking.spans:
        return
    others = {
        "whole_words": (masking.whole_words, "spans are of whole words already"),
        "rare_token_power": (masking.rare_token_power, "a span begins at any word, rare or not"),
        "probability": (masking.probability == 0, "no token is masked, so that there are no spans"),
    }
    for key, (is_set, why) in others.items():
        if is_set:
            raise UserError(
                f"data.masking.{key}",
                "its default with data.masking.spans=true",
                shown(getattr(masking, key)),
                why=why,
                fix=f"leave out {key} or spans",
            )


def _check_probe(plan: RunPlan) -> None:
    """Raise UserError for a probe where there are scores of the task itself, or where no process has all weights."""
    if plan.recipe.evaluation.probe is None:
        return
    if not plan.task.kind.predicts_words:
        raise UserError(
            "evaluation.probe",
            "none for a task",
            f"some with data.task={plan.recipe.data.task}",
            why="it is for language modelling; a task has scores of its own while it trains",
            fix="leave it out, and set training.eval_strategy",
        )
    if plan.is_sharded:
        raise UserError(
            "evaluation.probe",
            "none with FSDP or DeepSpeed",
            "some",
            why="no process has all weights of the student",
            fix="leave it out, or train without sharding",
        )
    builders.validate_probe(plan.recipe)


def _check_cache(recipe: Recipe) -> None:
    if recipe.teacher.cache is not None and recipe.data.streaming:
        raise UserError(
            "teacher.cache",
            "data.streaming=false",
            "true",
            why="a stream's rows cannot be found again",
            fix="leave one of the two out",
        )


def _check_hub(recipe: Recipe) -> None:
    if recipe.hub.push and not recipe.hub.repo_id:
        raise UserError(
            "hub.repo_id",
            "a name such as me/my-student for hub.push=true",
            "none",
            why="the student would go nowhere",
            fix="set hub.repo_id",
        )
    if recipe.hub.push and is_main_process():
        check_repository(str(recipe.hub.repo_id), private=recipe.hub.private)


def _check_folder(recipe: Recipe, folder: Path) -> None:
    cache = recipe.teacher.cache and recipe.teacher.cache.folder
    replacement = recipe.data.augmentation.replacement
    read = (*sources(recipe), cache, replacement and replacement.folder)
    inside = [name for name in read if name and _is_inside(name, folder)]
    if inside:
        raise UserError(
            "training.output_dir",
            "a folder apart from what the run reads",
            f"{folder}, which holds {', '.join(inside)}",
            why="it would be overwritten",
            fix="name another folder",
        )


def _is_inside(name: str, folder: Path) -> bool:
    """Return whether a local path in a recipe is inside the output folder."""
    return os.path.exists(name) and Path(name).resolve().is_relative_to(folder.resolve())


def _warn_idle_cores(args: TrainingArguments) -> None:
    """Log a hint where OMP_NUM_THREADS holds threads below the number of cores.

    Without it torch takes all cores. By default `accelerate launch` sets it to one: half the speed of two cores, or
    worse.
    """
    threads, cores = torch.get_num_threads(), cpu_cores()
    if args.device.type == "cpu" and args.world_size == 1 and threads < cores and "OMP_NUM_THREADS" in os.environ:
        hint = f"with OMP_NUM_THREADS={cores}, or `distil-nlp launch` for `accelerate launch`, it would be faster"
        logger.info(f"using {threads} of {cores} CPU cores; {hint}")
