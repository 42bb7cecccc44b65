"""Checks of a run before data and models are loaded: settings that contradict each other."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from distil_nlp.errors import UserError, listed, shown
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.metrics import metric_names
from distil_nlp.hub import check_repository
from distil_nlp.models import load_config
from distil_nlp.models.empty import empty_encoder
from distil_nlp.models.student import choose_layers
from distil_nlp.objective.term import ModelShape
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.pipeline.links import Link, chain_of
from distil_nlp.pipeline.plan import EQUAL_COMPUTE, NO_DISTILLATION, PLAIN, RunPlan, sources
from distil_nlp.pipeline.schemes import schemes_of
from distil_nlp.pipeline.teacher import finetuning_fields
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.validate import validate_no_unused_keys
from distil_nlp.signals.types import SignalRequest
from distil_nlp.teachers.ensemble_teacher import validate_mixing
from distil_nlp.teachers.last_epoch import validate_last_epoch
from distil_nlp.training.checks import (
    validate_arguments,
    validate_augmentation,
    validate_averaged_teacher,
    validate_averaging,
    validate_cache_support,
    validate_checkpointing,
    validate_double_backward,
)
from distil_nlp.training.rehearsal import rehearse, require_checkpointing
from distil_nlp.training.replacing import validate_replacing
from distil_nlp.utils.environment import cpu_cores
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)


def validate_plan(plan: RunPlan) -> None:
    """Raise UserError for settings at which a run would fail later, or that it would silently ignore."""
    recipe = plan.recipe
    validate_arguments(plan.args)
    validate_no_unused_keys(recipe, plan.task.kind)
    scheme_of(recipe).validate(plan)
    _check_lengths(plan)
    _check_choice_of_checkpoint(plan)
    _check_label_learning(plan)
    _check_baselines(recipe)
    _check_schemes(plan)
    _check_masking(plan)
    _check_cache(recipe)
    _check_self_teaching(plan)
    _check_teacher_checkpoints(recipe)
    _check_mixing(plan)
    _check_replacing(plan)
    validate_cache_support(plan.objective, recipe.teacher.cache)
    validate_augmentation(plan.objective, dict(recipe.data.augmentation), recipe.teacher.cache)
    validate_averaging(recipe.student.ema, _is_sharded(plan.args))
    _check_hub(recipe)
    _check_folder(recipe, plan.folder)
    _rehearse(plan)
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
        if section.name is None:
            continue
        try:
            config = load_config(section.name, section.revision)
            config.num_hidden_layers = 1
            shell = empty_encoder(config)
        except Exception:
            continue  # what is wrong with it is told where it is loaded
        require_checkpointing(shell, args, where)


def _check_signals(plan: RunPlan) -> None:
    """Raise UserError for arguments under which terms would have no gradient; what cannot be looked at passes."""
    recipe = plan.recipe
    objective = copy.deepcopy(plan.objective)
    try:
        shape = ModelShape.of(load_config(recipe.teacher.name, recipe.teacher.revision))
        with torch.random.fork_rng(devices=[]):
            objective.bind(shape, shape)
    except Exception:
        return  # what is wrong with it is told where it is loaded
    request = objective.request("student")
    name = next((name for name in recipe.training if name.endswith("checkpointing_kwargs")), "")
    validate_checkpointing(plan.args, request, f"training.{name}")
    validate_double_backward(plan.args, request)
    if recipe.student.replacing is not None:
        validate_replacing(plan.args, request, is_sharded=False)


def _check_replacing(plan: RunPlan) -> None:
    """Raise UserError for a student whose layers cannot stand in for the teacher's."""
    recipe, student = plan.recipe, plan.recipe.student
    if student.replacing is None:
        return
    if "random_init" in recipe.evaluation.baselines:
        raise UserError(
            "evaluation.baselines",
            "no random_init with student.replacing",
            "random_init",
            why="random layers come from none of the teacher's that they could stand in for",
            fix="leave one of the two out",
        )
    others = {
        "teacher.self": recipe.teacher.self,
        "teacher.assistants": recipe.teacher.assistants,
        "student.generations": student.generations > 1,
    }
    beside = [name for name, value in others.items() if value]
    if beside:
        raise UserError(
            "student.replacing",
            f"no {beside[0]} beside it",
            "both",
            why="the layers that stand in are the teacher's own",
            fix="leave one of the two out",
        )
    if student.architecture != "same":
        raise UserError(
            "student.replacing",
            "student.architecture=same",
            student.architecture,
            why="layers of other classes cannot take the place of the teacher's",
            fix="leave one of the two out",
        )
    sharded = _is_sharded(plan.args)
    validate_replacing(plan.args, SignalRequest(), sharded)
    try:
        config = load_config(recipe.teacher.name, recipe.teacher.revision)
    except Exception:
        return  # what is wrong with it is told where it is loaded
    replacing = builders.replacing_of(student, config)
    assert replacing is not None
    replacing.groups(config.num_hidden_layers)
    width = student.config.get("hidden_size", config.hidden_size)
    if width != config.hidden_size:
        raise UserError(
            "student.config.hidden_size",
            f"the teacher's {config.hidden_size} with student.replacing",
            str(width),
            why="the teacher's layers run on the student's states",
            fix="leave one of the two out",
        )


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
    if "random_init" not in recipe.evaluation.baselines:
        return
    if recipe.student.name is not None or recipe.student.layers == "random":
        got = recipe.student.name or "student.layers=random"
        raise UserError(
            "evaluation.baselines",
            "random_init for a student copied from the teacher",
            got,
            why="there is no such student to compare with",
            fix="leave random_init out",
        )


def _check_schemes(plan: RunPlan) -> None:
    """Raise UserError for training schemes that do not go together, and baselines that need one."""
    recipe, schemes = plan.recipe, schemes_of(plan.recipe)
    without = [name for name in recipe.evaluation.baselines if name in (PLAIN, EQUAL_COMPUTE)]
    if without and not schemes:
        raise UserError(
            "evaluation.baselines",
            f"{', '.join(without)} for a recipe with a training scheme",
            "none",
            why="the student is distilled plainly, and there is nothing to compare it with",
            fix="leave it out",
        )
    links = chain_of(recipe)
    if not links:
        return
    keys = [scheme.place for scheme in schemes]
    if recipe.teacher.assistants and recipe.student.generations > 1:
        raise UserError("student.generations", "1 with teacher.assistants", "more", fix="leave one of the two out")
    if recipe.teacher.reseed:
        raise UserError(
            "teacher.reseed",
            f"false with {keys[0]}",
            "true",
            why="all seeds are taught by the same chain of students",
            fix="leave it out",
        )
    if recipe.teacher.guided == "dense" and recipe.teacher.ensemble:
        raise UserError(
            "teacher.guided",
            "last with teacher.ensemble",
            "dense",
            why="the teacher among the guides is one model",
            fix="leave one of the two out",
        )
    others = [scheme for scheme in schemes if scheme.place in ("teacher.self", "teacher.checkpoints")]
    if others and (recipe.teacher.assistants or recipe.student.generations > 1):
        raise UserError(
            keys[0],
            "no teacher.self or teacher.checkpoints beside it",
            " and ".join(keys),
            why="another student teaches already",
            fix="leave one of the two out",
        )
    if not plan.objective.needs_teacher:
        raise UserError(
            "objective",
            f"a term that learns from a teacher, for {keys[0]}",
            listed(plan.objective.names),
            why="those that are trained in between would teach nothing",
            fix="add one, such as soft_target_kl",
        )
    _check_layer_pairs(plan, links)


def _check_layer_pairs(plan: RunPlan, links: Sequence[Link]) -> None:
    """Raise UserError if the terms cannot pair the layers of a link and what it teaches.

    What cannot be looked at passes.
    """
    try:
        guide = ModelShape.of(load_config(plan.recipe.teacher.name, plan.recipe.teacher.revision))
    except Exception:
        return  # what is wrong with it is told where it is loaded
    teacher = guide
    for recipe in [*(link.recipe for link in links), plan.recipe]:
        if recipe.student.name is not None:
            return
        layers = choose_layers(recipe.student.layers, teacher.num_layers, recipe.student.num_layers)
        depth = len(layers) if layers else recipe.student.num_layers or teacher.num_layers // 2
        student = dataclasses.replace(teacher, num_layers=depth)
        with torch.random.fork_rng(devices=[]):
            builders.objective_from(recipe, plan.task.kind).bind(guide, student)
        guide = student


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


def _check_cache(recipe: Recipe) -> None:
    if recipe.teacher.cache is not None and recipe.data.streaming:
        raise UserError(
            "teacher.cache",
            "data.streaming=false",
            "true",
            why="a stream's rows cannot be found again",
            fix="leave one of the two out",
        )


def _check_self_teaching(plan: RunPlan) -> None:
    """Raise UserError for what does not go together with a student that teaches itself."""
    recipe, section = plan.recipe, plan.recipe.teacher.self
    if section is None:
        return
    fixed = [] if section.kind == "pretrained" else ["cache"]
    others = [name for name in ("ensemble", "checkpoints", *fixed) if getattr(recipe.teacher, name) is not None]
    if others:
        raise UserError(
            "teacher.self",
            f"no teacher.{others[0]} beside it",
            f"teacher.self={section.kind} and teacher.{others[0]}",
            why="the student is taught by itself alone, and its answers change as it learns",
            fix="leave one of the two out",
        )
    if not plan.objective.needs_teacher:
        raise UserError(
            "teacher.self",
            "a term of the objective that learns from a teacher",
            ", ".join(plan.objective.names),
            why="nothing would be learnt from what the student says of itself",
            fix="add soft_target_cross_entropy, say, or leave teacher.self out",
        )
    if section.kind == "last_epoch":
        _check_last_epoch(plan)
    elif section.kind != "pretrained":
        validate_averaged_teacher(_is_sharded(plan.args))


def _check_teacher_checkpoints(recipe: Recipe) -> None:
    """Raise UserError where a teacher has no checkpoints to teach, or where they cannot all be asked."""
    section = recipe.teacher
    if section.checkpoints is None:
        return
    if section.finetune is None or section.finetune_when != "always":
        raise UserError(
            "teacher.checkpoints",
            "a teacher that is fine-tuned here",
            "teacher.finetune=null" if section.finetune is None else f"teacher.finetune_when={section.finetune_when}",
            why="they are kept while it is fine-tuned",
            fix="set teacher.finetune={} and finetune_when=always, or leave checkpoints out",
        )
    others = [name for name in ("ensemble", "cache") if getattr(section, name) is not None]
    if others:
        raise UserError(
            "teacher.checkpoints",
            f"no teacher.{others[0]} beside them",
            f"teacher.{others[0]} too",
            why="a cache has the outputs of one teacher, and the steps are divided among the checkpoints of one",
            fix="leave one of the two out",
        )


def _check_last_epoch(plan: RunPlan) -> None:
    augmentation = plan.recipe.data.augmentation
    validate_last_epoch(plan.objective, mixes=augmentation.mixup is not None)
    if augmentation.replacement is not None:
        raise UserError(
            "data.augmentation.replacement",
            "none with teacher.self=last_epoch",
            "copies of rows with replaced words",
            why="they have no label, without which their first target is unknown",
            fix="leave one of the two out",
        )
    if plan.args.max_steps <= 0 and plan.args.num_train_epochs <= 1:
        raise UserError(
            "training.num_train_epochs",
            "more than 1 with teacher.self=last_epoch",
            f"{plan.args.num_train_epochs:g}",
            why="there would be no predictions of an epoch before, so that labels alone would teach",
            fix="train longer, or leave teacher.self out",
        )


def _check_mixing(plan: RunPlan) -> None:
    """Raise UserError for weights and means of several teachers that the task, a term or the cache rules out."""
    teacher = plan.recipe.teacher
    if not teacher.ensemble:
        return
    mixing = builders.mixing_of(plan.recipe)
    if len(mixing.active) == 1 and (mixing.mix, mixing.weighting) != ("logits", "fixed"):
        raise UserError(
            "teacher.ensemble",
            f"two teachers with a weight above 0 for teacher.mix={mixing.mix} and teacher.weighting={mixing.weighting}",
            "one",
            why="there would be nothing to mix",
            fix="raise a weight, or leave them out",
        )
    validate_mixing(mixing, plan.objective, is_cached=teacher.cache is not None)


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


def _is_sharded(args: TrainingArguments) -> bool:
    return bool(args.fsdp) or args.deepspeed_plugin is not None


def _warn_idle_cores(args: TrainingArguments) -> None:
    """Log a hint where OMP_NUM_THREADS holds threads below the number of cores.

    Without it torch takes all cores. By default `accelerate launch` sets it to one: half the speed of two cores, or
    worse.
    """
    threads, cores = torch.get_num_threads(), cpu_cores()
    if args.device.type == "cpu" and args.world_size == 1 and threads < cores and "OMP_NUM_THREADS" in os.environ:
        hint = f"with OMP_NUM_THREADS={cores}, or `distil-nlp launch` for `accelerate launch`, it would be faster"
        logger.info(f"using {threads} of {cores} CPU cores; {hint}")
