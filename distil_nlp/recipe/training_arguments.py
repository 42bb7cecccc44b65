"""Checks of `training:`, which takes any field of `TrainingArguments`: names, types and ranges."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import TrainingArguments

from distil_nlp.errors import quoted, shown

_RANGES: dict[str, tuple[float, float]] = {
    "adam_beta1": (0, 0.999999),
    "adam_beta2": (0, 0.999999),
    "adam_epsilon": (1e-20, 1),
    "data_seed": (0, 2**32 - 1),
    "dataloader_num_workers": (0, 1024),
    "dataloader_prefetch_factor": (1, 1e6),
    "ddp_bucket_cap_mb": (1, 1e6),
    "ddp_timeout": (1, 1e9),
    "eval_accumulation_steps": (1, 1e12),
    "eval_delay": (0, 1e12),
    "eval_steps": (1e-9, 1e12),
    "gradient_accumulation_steps": (1, 1e9),
    "learning_rate": (0, 1e3),
    "logging_steps": (1e-9, 1e12),
    "max_grad_norm": (0, 1e12),
    "max_steps": (1, 1e12),
    "num_train_epochs": (1e-9, 1e9),
    "per_device_eval_batch_size": (1, 1e9),
    "per_device_train_batch_size": (1, 1e9),
    "save_steps": (1e-9, 1e12),
    "save_total_limit": (1, 1e9),
    "seed": (0, 2**32 - 1),
    "torch_empty_cache_steps": (1, 1e12),
    "warmup_steps": (0, 1e12),
    "weight_decay": (0, 1e3),
}
"""Ranges of fields for which transformers accepts any value, and fails later or does something else."""
_NONE_WANTED = {"max_steps": (-1, "for those of num_train_epochs")}
"""Values besides a range that stand for no limit, and what they mean."""

_OTHER_NAMES = {
    "accumulation_steps": "gradient_accumulation_steps",
    "adafactor": "optim=adafactor",
    "batch_size": "per_device_train_batch_size",
    "bfloat16": "bf16",
    "clip_grad_norm": "max_grad_norm",
    "dispatch_batches": "accelerator_config",
    "early_stopping": "evaluation.early_stopping_patience",
    "early_stopping_patience": "evaluation.early_stopping_patience",
    "epochs": "num_train_epochs",
    "eval_batch_size": "evaluation.batch_size",
    "evaluation_strategy": "eval_strategy",
    "fp16_backend": "fp16",
    "fp16_opt_level": "fp16",
    "grad_accum": "gradient_accumulation_steps",
    "grad_clip": "max_grad_norm",
    "gradient_clipping": "max_grad_norm",
    "group_by_length": "train_sampling_strategy=group_by_length",
    "half_precision_backend": "fp16",
    "include_inputs_for_metrics": "include_for_metrics=[inputs]",
    "learning_rate_scheduler": "lr_scheduler_type",
    "logging_dir": "output_dir",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_epochs": "num_train_epochs",
    "max_length": "data.max_length",
    "max_seq_length": "data.max_length",
    "mixed_precision": "bf16=true",
    "no_cuda": "use_cpu",
    "num_steps": "max_steps",
    "num_workers": "dataloader_num_workers",
    "optimizer": "optim",
    "overwrite_output_dir": "run.overwrite",
    "patience": "evaluation.early_stopping_patience",
    "per_gpu_eval_batch_size": "evaluation.batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "push_to_hub_model_id": "hub.repo_id",
    "random_seed": "seed",
    "scheduler": "lr_scheduler_type",
    "seeds": "evaluation.seeds",
    "sharded_ddp": "fsdp",
    "split_batches": "accelerator_config",
    "steps": "max_steps",
    "temperature": "objective.soft_target_kl.temperature",
    "torchdynamo": "torch_compile_backend",
    "train_batch_size": "per_device_train_batch_size",
    "use_mps_device": "use_cpu=false",
    "warmup": "warmup_steps",
    "warmup_proportion": "warmup_steps=0.1 (below 1 it is a fraction)",
    "warmup_ratio": "warmup_steps=0.1 (below 1 it is a fraction)",
    "wd": "weight_decay",
}
"""Names of older versions of transformers, and of other tools → the recipe's."""

_EXCLUDED = {
    "push_to_hub": "the Hub is the recipe's section hub",
    "hub_model_id": "the Hub is the recipe's section hub",
    "hub_token": "a token does not belong into a file; hf auth login keeps it",
    "resume_from_checkpoint": "the same command carries on by itself",
    "save_only_model": "such a checkpoint cannot be carried on from exactly",
    "do_train": "a recipe trains",
    "do_eval": "scores are always taken",
    "do_predict": "scores are always taken",
    "remove_unused_columns": "columns are chosen by what teacher and student read",
    "label_names": "the label column is data.label_column",
}


_EXCLUDED_FOR_TEACHER = ("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end", "output_dir")


def training_mistakes(where: str, fields: dict[str, Any]) -> list[str]:
    """Return one line for each mistake in a dict of training fields.

    Args:
        where: the recipe key of these fields, `training` or `teacher.finetune`.
        fields: name → value.
    """
    types = training_types()
    mistakes = []
    for name, value in fields.items():
        if not isinstance(name, str) or name not in types:
            mistakes.append(f"{where}.{shown(name)}: unknown key; {_hint(str(name), types)}")
            continue
        if where != "training" and name in _EXCLUDED_FOR_TEACHER:
            mistakes.append(f"{where}.{name}: expected it left out, since the last step is kept / got {quoted(value)}")
            continue
        if name in _EXCLUDED:
            got = "one" if name.endswith("token") else quoted(value)
            mistakes.append(f"{where}.{name}: expected it left out, since {_EXCLUDED[name]} / got {got}")
            continue
        expected = _type_mistake(types[name], value) or _range_mistake(name, value)
        if expected:
            mistakes.append(f"{where}.{name}: expected {expected} / got {quoted(value)}")
    return mistakes


def _hint(name: str, known: Iterable[str]) -> str:
    """Return the name that was meant, as far as it can be told."""
    near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "see transformers.TrainingArguments"


def training_types() -> dict[str, Any]:
    """Return field → type of `TrainingArguments` in the installed transformers."""
    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainingArguments) if field.init}


def _type_mistake(kind: Any, value: Any) -> str | None:
    """Return the expected type, or None if the value has it."""
    if value is None:
        return None if type(None) in typing.get_args(kind) else "a value"
    try:
        adapter = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except TypeError:  # a dataclass: pydantic does not take a config beside its own
        adapter = TypeAdapter(kind)
    strict = bool({int, float, bool} & {kind, *typing.get_args(kind)}) and str not in typing.get_args(kind)
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    try:
        adapter.validate_python(value, strict=strict)
    except ValidationError as error:
        expected = [detail["msg"].removeprefix("Input should be ") for detail in error.errors(include_url=False)]
        return " or ".join(dict.fromkeys(text[:1].lower() + text[1:] for text in expected))
    if typing.get_args(kind) and str in typing.get_args(kind) and isinstance(value, str):
        return _enum_mistake(kind, value)
    return None


def _range_mistake(name: str, value: Any) -> str | None:
    """Return the expected range, or None if the value is in it."""
    low, high = _RANGES.get(name, (-math.inf, math.inf))
    if value is None or not isinstance(value, (int, float)) or low <= value <= high:
        return None
    expected = f"a number from {low:g} to {high:g}"
    if name not in _NONE_WANTED:
        return expected
    none, meaning = _NONE_WANTED[name]
    return None if value == none else f"{expected}, or {none} {meaning}"


def _enum_mistake(kind: Any, value: str) -> str | None:
    """Return the expected names for a type such as `IntervalStrategy | str`, or None if the value is one of them.

    Transformers accepts any string there, and fails later.
    """
    for member in typing.get_args(kind):
        if isinstance(member, type) and issubclass(member, enum.Enum):
            values = [str(item.value) for item in member]
            if value not in values:
                near = [name for name in values if name.startswith(value)] or difflib.get_close_matches(value, values)
                return f"one of {', '.join(near[:4] if near else values)}"
    return None
