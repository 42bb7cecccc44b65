"""A rehearsal of training arguments: one step of a tiny model with them, before anything slow.

Optimisers, schedules and much else of `TrainingArguments` are only looked at within `Trainer.train`, which a run
reaches after its teacher is fine-tuned and scored.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch._dynamo import lookup_backend
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)
from transformers.integrations import get_reporting_integration_callbacks

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.objective.objective import Objective
from distil_nlp.training.checks import validate_arguments
from distil_nlp.training.sharding import Sharding
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.logging import quiet_transformers

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions by which Trainer, accelerate and optimisers refuse arguments."""
_STEPS = 10**6
"""Steps of a training whose number is not known yet: enough for every schedule."""
_SIZES: Any = {
    "vocab_size": 8,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
_FIXES = {
    "lr_scheduler_type": "set {section}.lr_scheduler_kwargs to what it asks for, such as {{num_decay_steps: 100}} or "
    "{{min_lr: 1e-6}}, or choose another schedule",
    "optim": "install the package that it needs, or choose another optimiser, such as adamw_torch",
    "report_to": "install the package that it needs, or leave it out",
    "activation_checkpointing": "leave it out, and lower per_device_train_batch_size for memory",
    "gradient_checkpointing": "leave it out, and lower per_device_train_batch_size for memory",
}


class _OneStep(TrainerCallback):
    """Ends training after a step, with all that is due at any step."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop = True
        control.should_evaluate = args.eval_strategy != "no"
        control.should_save = args.save_strategy != "no"


def rehearse(
    fields: Mapping[str, Any],
    build: Callable[[dict[str, Any]], TrainingArguments],
    has_metrics: bool = False,
    key: Callable[[str], str] = "training.{}".format,
) -> None:
    """Take one step of a tiny model with training arguments.

    Args:
        fields: the arguments that a recipe sets.
        build: fields → arguments.
        has_metrics: whether evaluations compute metrics.
        key: the name of a field → its recipe key.

    Raises:
        UserError: naming the field without which the step succeeds, with the words of who refused it.
    """
    refusal = _refusal(build, dict(fields), has_metrics)
    if refusal is None:
        return
    if isinstance(refusal, UserError):
        raise _moved(refusal, fields, key)
    suspects = sorted(fields, key=lambda name: name not in str(refusal) and name not in _FIXES)  # those first
    blamed = next((name for name in suspects if _refusal(build, without(fields, name), has_metrics) is None), None)
    if blamed is None and _refusal(build, {}, has_metrics) is not None:
        return  # no argument is to blame: the run itself will say what is
    raise refused_field(blamed, fields, key, refusal) from refusal


def _moved(error: UserError, fields: Mapping[str, Any], key: Callable[[str], str]) -> UserError:
    """Return an error about a field of `training` as one about the field of that name in these fields."""
    name = (error.where or "").removeprefix("training.")
    return UserError(key(name), error.expected, error.got, error.why, error.fix) if name in fields else error


def without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the fields other than one."""
    return {other: value for other, value in fields.items() if other != name}


def refused_field(
    name: str | None, fields: Mapping[str, Any], key: Callable[[str], str], error: Exception
) -> UserError:
    """Return the error for a field that Trainer refuses; None if it is several fields together."""
    section = key(name or "").rpartition(".")[0]
    words = " ".join(str(error).split())
    return UserError(
        key(name) if name else section,
        "values that Trainer takes together",
        f"{fields[name]!r}" if name else ", ".join(fields),
        why=f"{type(error).__name__}: {words[:400]}",
        fix=_FIXES.get(name or "", "leave it out, or set what that asks for").format(section=section),
    )


def require_checkpointing(model: PreTrainedModel, args: TrainingArguments, where: str) -> None:
    """Raise UserError where a model cannot checkpoint activations; `model` may be on the meta device."""
    if not args.activation_checkpointing:
        return
    given: Any = args.activation_checkpointing_kwargs
    options = dict(given or {})
    apart = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
    try:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options or None, **apart)
    except REFUSALS as error:
        name = where.rpartition(".")[2]
        raise refused_field(name, {name: True}, lambda _: where, error) from error


def _refusal(
    build: Callable[[dict[str, Any]], TrainingArguments], fields: dict[str, Any], has_metrics: bool
) -> Exception | None:
    """Return the error of a step with these fields, or None; nothing is left of the step."""
    states = random.getstate(), np.random.get_state()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), quiet_transformers():
            _take_step(_arguments(build(fields), folder), has_metrics)
    except (*REFUSALS, UserError) as error:
        return error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return None


def _arguments(args: TrainingArguments, folder: str) -> TrainingArguments:
    """Return arguments for a few rows in another folder; the rest is what was asked for."""
    for callback in get_reporting_integration_callbacks(args.report_to):
        callback()  # which asks for its package
    if args.torch_compile:
        lookup_backend(args.torch_compile_backend or "inductor")
    args = copy.copy(args)
    args.output_dir, args.report_to, args.torch_compile = folder, [], False
    args.max_steps = args.max_steps if args.max_steps > 0 else _STEPS
    args.per_device_train_batch_size = args.per_device_eval_batch_size = 1
    args.gradient_accumulation_steps = min(args.gradient_accumulation_steps, 2)
    if args.dataloader_num_workers:
        args.dataloader_num_workers, args.dataloader_prefetch_factor = 0, None
        args.dataloader_persistent_workers = False
    args.disable_tqdm = True
    args.load_best_model_at_end = args.load_best_model_at_end and args.world_size == 1  # each process has its folder
    return args


def _take_step(args: TrainingArguments, has_metrics: bool) -> None:
    if Sharding.of(args):
        validate_arguments(args)
        return  # which leave their mark on the process
    row = {"input_ids": [1, 2, 3], "attention_mask": [1, 1, 0], "labels": 0, "length": 3}
    rows = Dataset.from_list([row] * (4 * args.world_size))
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")

    def metrics(prediction: Any) -> dict[str, float]:
        return {best: 0.0}

    trainer = DistillationTrainer(
        model=BertForSequenceClassification(BertConfig(**_SIZES)),
        args=args,
        objective=Objective([HardLabel()], "classification"),
        train_dataset=rows,
        eval_dataset=rows if args.eval_strategy != "no" else None,
        data_collator=default_data_collator,
        compute_metrics=metrics if has_metrics else None,
        callbacks=[_OneStep()],
    )
    trainer.pop_callback(PrinterCallback)
    trainer.train()
