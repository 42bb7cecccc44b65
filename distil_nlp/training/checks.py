"""Checks of a trainer's arguments and objective, and arguments that the trainer must set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel, TrainingArguments
from transformers.training_args import ParallelMode

from distil_nlp.errors import UserError
from distil_nlp.models import check_meaning
from distil_nlp.models.architecture import drops_out, ensemble_members
from distil_nlp.signals.types import SignalRequest
from distil_nlp.tasks import TaskKind
from distil_nlp.training.sharding import Sharding
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def validate_arguments(args: TrainingArguments) -> None:
    """Raise an error for arguments that would change the objective silently.

    Raises:
        UserError: for label smoothing, NEFTune or Liger, for CUDA graphs, for several GPUs without a launcher, for
            launched processes that do not communicate, and for FSDP in a single process.
    """
    silent = {
        "label_smoothing_factor": "it would replace hard_label by another loss",
        "neftune_noise_alpha": "the noise would disturb the student's embeddings, which the terms compare",
        "use_liger_kernel": "it replaces the model's own loss and layers, which the signals read",
    }
    for name, consequence in silent.items():
        if getattr(args, name, None):
            raise UserError(
                f"training.{name}",
                "it unset",
                str(getattr(args, name)),
                why=consequence,
                fix="leave it out",
            )
    if args.max_steps == 0 or (args.max_steps < 0 and args.num_train_epochs <= 0):
        name = "max_steps" if args.max_steps == 0 else "num_train_epochs"
        raise UserError(
            f"training.{name}",
            "1 or more, or -1 for the steps of num_train_epochs" if name == "max_steps" else "a number above 0",
            str(getattr(args, name)),
            why="nothing would be learnt",
            fix="leave it out, or set how long to train",
        )
    if args.torch_compile and args.torch_compile_mode in _CUDA_GRAPHS:
        raise UserError(
            "training.torch_compile_mode",
            "a mode without CUDA graphs",
            str(args.torch_compile_mode),
            why="a graph's output is overwritten by the next one, while terms still read it",
            fix="leave it out, or use max-autotune-no-cudagraphs",
        )
    if args.n_gpu > 1:
        raise UserError(
            None,
            "one process per GPU",
            f"one process for {args.n_gpu} GPUs",
            why="DataParallel would divide by the wrong row counts",
            fix=("start with `accelerate launch scripts/distill.py …`, or show one GPU only (CUDA_VISIBLE_DEVICES=0)"),
        )

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != args.world_size:
        raise UserError(
            None,
            f"{launched} processes that train together, as they were launched",
            "processes that each take themselves for the only one",
            why="they would overwrite each other's results",
            fix="on the CPU: set training.use_cpu=true",
        )
    if args.fsdp and args.parallel_mode != ParallelMode.DISTRIBUTED:
        raise UserError(
            "training.fsdp",
            "several processes",
            "one",
            why="FSDP divides a model among processes",
            fix="start with `accelerate launch --num_processes N scripts/distill.py …`, or leave it out",
        )


def validate_settings(
    args: TrainingArguments, objective: Any, student: PreTrainedModel, cache: Any, augmentations: Mapping[str, Any]
) -> None:
    """Raise UserError for what is known to be wrong before the objective is bound to the models.

    Args:
        args: the training's.
        objective: its kind and its terms are checked.
        student: the model to train.
        cache: where teacher outputs are kept, or None.
        augmentations: see `validate_augmentation`.
    """
    validate_arguments(args)
    validate_cache_support(objective, cache)
    validate_dropout(objective, student)
    validate_augmentation(objective, augmentations, cache)
    validate_balancing_precision(objective, args)


def validate_augmentation(objective: Any, augmentations: Mapping[str, Any], cache: Any) -> None:
    """Raise an error for augmentation that an objective cannot use.

    Args:
        objective: its kind and its terms are checked.
        augmentations: `cutoff`, `mixup` and `replacement` → their settings, or None.
        cache: where teacher outputs are kept, or None.

    Raises:
        UserError: for language modelling, for cached teacher outputs of rows that change each epoch, and for rows
            without a label where no term learns from the teacher alone.
    """
    names = {f"data.augmentation.{name}": name for name, part in augmentations.items() if part is not None}
    changing = [key for key, name in names.items() if name != "replacement"]
    unlabelled = [key for key, name in names.items() if name != "cutoff"]
    if names and not objective.kind.can_augment:
        raise UserError(
            ", ".join(names),
            "a task (classification, regression)",
            objective.kind.title,
            why="its masks make another row of a text each epoch already",
            fix="leave data.augmentation out",
        )
    if changing and cache is not None:
        raise UserError(
            "teacher.cache",
            "rows that stay as they are",
            ", ".join(changing),
            why="each epoch shows other rows, for which nothing is cached",
            fix="leave one of the two out",
        )
    if unlabelled and not any(term.needs_teacher and term.uses_unlabelled_rows for term in objective.terms):
        raise UserError(
            ", ".join(unlabelled),
            "a term that learns from the teacher without labels",
            ", ".join(objective.names),
            why="rows that were made have no label, so that nothing would be learnt from them",
            fix="add soft_target_kl, say, or leave it out",
        )


def validate_cache_support(objective: Any, cache: Any) -> None:
    """Raise UserError for terms that need the teacher itself, where its outputs are cached."""
    names = [term.name for term in objective.terms if not term.accepts_cached_teacher]
    if names and cache is not None:
        raise UserError(
            "teacher.cache",
            "terms on the teacher's outputs",
            ", ".join(names),
            why="the teacher itself must be there for that",
            fix="leave one of the two out",
        )


def set_required_arguments(args: TrainingArguments) -> None:
    """Set the arguments on which the trainer depends."""
    args.remove_unused_columns = False  # the teacher needs columns that the student does not know
    args.logging_nan_inf_filter = False  # it would hide a NaN, and synchronise every micro-step
    config: Any = args.accelerator_config
    config.dispatch_batches = False  # ragged streams cannot be dispatched from one process
    if args.fp16 and args.device.type == "cpu":
        logger.info("fp16 has no effect on a CPU: training runs in float32; bf16=true is what a CPU can do")
    config.non_blocking = args.dataloader_pin_memory  # the host goes on while a batch is copied


def validate_balancing_precision(objective: Any, args: TrainingArguments) -> None:
    """Raise UserError where DeepSpeed would round the running means of balancing."""
    if objective.balance is not None and args.deepspeed_plugin is not None and args.bf16:
        raise UserError(
            "balance",
            "fixed weights under DeepSpeed in bf16",
            "balanced ones",
            why="it would round their running means to bf16",
            fix="leave balance out, or use DDP",
        )


def validate_checkpointing(
    args: TrainingArguments, request: SignalRequest, where: str = "training.activation_checkpointing_kwargs"
) -> None:
    """Raise an error for reentrant checkpointing where signals come from within the blocks.

    It runs the first forward without a graph, so that these signals would have no gradient.

    Raises:
        UserError: if attention or activation terms would lose their gradient.
    """
    options = args.activation_checkpointing_kwargs
    is_reentrant = args.activation_checkpointing and isinstance(options, dict) and options.get("use_reentrant")
    if is_reentrant and (request.attention or request.activations):
        raise UserError(
            where,
            "use_reentrant=false",
            "true",
            why="attention and activation terms would have no gradient",
            fix="leave it out",
        )


def validate_double_backward(args: TrainingArguments, request: SignalRequest) -> None:
    """Raise UserError where the gradient of a gradient is not available."""
    fields = ("torch_compile", "gradient_checkpointing", "activation_checkpointing", "fp16")
    named = [name for name in fields if getattr(args, name, None)]
    if request.input_gradient and named:
        raise UserError(
            f"training.{named[0]}",
            "it unset with input_gradient",
            str(getattr(args, named[0])),
            why="the term's gradient is that of a gradient, which it does not give, or rounds to 0 (fp16)",
            fix="leave one of the two out",
        )


def validate_dropout(objective: Any, student: PreTrainedModel) -> None:
    """Raise UserError for a student without dropout whose two passes are to be compared."""
    comparing = [term.name for term in objective.terms if term.compares_passes]
    if comparing and not drops_out(student):
        raise UserError(
            f"objective.{comparing[0]}",
            "a student with dropout",
            f"dropout 0 in all of {type(student).__name__}",
            why="its two passes over a row are the same, and there is nothing to learn",
            fix=f"leave {comparing[0]} out, or set a dropout of its family in student.config, such as "
            "{hidden_dropout_prob: 0.1} of BERT or {mlp_dropout: 0.1} of ModernBERT",
        )


def validate_sharding(request: SignalRequest, sharding: Sharding) -> None:
    """Raise an error for terms that sharding rules out.

    Args:
        request: signals of the student.
        sharding: what divides the student.

    Raises:
        UserError: for terms on whole parameters where each process has a part, and for terms with a backward of their
            own where FSDP or DeepSpeed take over the backward.
    """
    if request.weights and sharding.takes_weights:
        raise UserError(
            "objective.weights_mse",
            "whole weights in every process",
            f"{sharding}, which shards them",
            why="there would be nothing to compare",
            fix="use DDP or ZeRO-2, or leave the term out",
        )
    if request.input_gradient and sharding:
        raise UserError(
            "objective.input_gradient",
            "one process or DDP",
            str(sharding),
            why="its backward cannot be differentiated once more",
            fix="use DDP, or leave the term out",
        )


def validate_averaged_teacher(is_sharded: bool) -> None:
    """Raise UserError where the student's weights are not whole in every process, or are rounded."""
    if is_sharded:
        raise UserError(
            "teacher.self",
            "one process or DDP with ema and checkpoints",
            "FSDP or DeepSpeed",
            why="averages are of whole weights in the precision of training",
            fix="use DDP, or teacher.self=last_epoch",
        )


def validate_joint(is_joint: bool, args: TrainingArguments, where: str) -> None:
    """Raise an error for arguments under which further modules cannot train together with the student.

    Args:
        is_joint: whether there are such modules.
        args: the training's.
        where: the recipe key of the modules.

    Raises:
        UserError: for FSDP, DeepSpeed and torch_compile.
    """
    sharding = Sharding.of(args)
    if is_joint and sharding:
        raise UserError(
            where,
            "one process, or DDP",
            str(sharding),
            why="it would wrap or divide the modules that train together with the student",
            fix="use DDP, or leave it out",
        )
    if is_joint and args.torch_compile:
        raise UserError(
            "training.torch_compile",
            f"false with {where}",
            "true",
            why="the student's blocks are compiled, not those of the modules that train together with it",
            fix="leave one of the two out",
        )


def validate_teacher_outputs(teacher: PreTrainedModel, kind: TaskKind) -> None:
    """Raise an error unless the outputs of a teacher, or of each in an ensemble, mean what those of the kind do."""
    for member in ensemble_members(teacher):
        config: Any = getattr(member, "config", None)
        check_meaning(config, kind, getattr(config, "name_or_path", "") or type(member).__name__)
