"""A teacher fine-tuned on the run's own data: once, then reused by every run that would train the same one."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.evaluation.metrics import metric_function
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.models import commit_of, load_model
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.builders.data import TransferSet
from distil_nlp.pipeline.builders.training import training_arguments
from distil_nlp.recipe import Recipe
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.failures import enough_memory
from distil_nlp.utils.files import checksum, write_atomically
from distil_nlp.utils.logging import say

DONE = "teacher.json"

_SHARED = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16", "tf32", "use_cpu", "optim",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile", "train_sampling_strategy",
    "dataloader_num_workers", "dataloader_pin_memory", "logging_steps", "disable_tqdm", "ddp_backend", "deepspeed",
    "fsdp", "fsdp_config", "accelerator_config", "full_determinism",
)  # fmt: skip
"""Fields of `training` that also hold for the teacher: how and where to compute. Length, learning rate, seed and
checkpoint choice are the student's own."""


_NO_MATTER = (
    "logging_steps", "disable_tqdm", "dataloader_num_workers", "dataloader_pin_memory", "save_strategy", "save_steps",
    "save_total_limit", "report_to", "run_name", "ddp_backend", "use_cpu",
)  # fmt: skip
"""Fields that make no other teacher."""


def finetuned_teacher(
    recipe: Recipe, data: TransferSet, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, bool, str | None]:
    """(teacher, whether it was trained now, the commit that it started from, if that is on the Hub). An unfinished
    fine-tuning is carried on."""
    fields = {name: recipe.training[name] for name in _SHARED if name in recipe.training} | recipe.teacher.finetune
    rows = data.labelled()
    folder = teacher_folder(recipe, fields, rows)
    if (folder / DONE).is_file():
        told = json.loads((folder / DONE).read_text())
        return load_model(str(folder / "model"), data.head), False, told.get("revision")
    say(f"fine-tuning the teacher first; it is kept in {folder}")
    args = training_arguments({"save_total_limit": 2, **fields}, folder, recipe)
    with args.main_process_first(desc="teacher"):
        folder.mkdir(parents=True, exist_ok=True)
    set_seed(args.seed)
    model = load_model(recipe.teacher.name, data.head, new_head=True, revision=recipe.teacher.revision)
    commit = commit_of(recipe.teacher.name, recipe.teacher.revision)
    trainer = DistillationTrainer(
        model=model.train(),
        args=args,
        objective=Objective([HardLabel()], data.head.kind),
        train_dataset=rows,
        eval_dataset=data.split.selection,
        data_collator=data.collator,
        compute_metrics=None if data.head.kind == "mlm" else metric_function(data.task),
    )
    checkpoint = last_complete_checkpoint(folder)
    with enough_memory(args, "teacher.finetune"):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.student_state()
    teacher = trainer.detach()
    if args.should_save:
        _keep(teacher, state, tokenizer, folder, {**fields, "revision": commit})
    trainer.accelerator.wait_for_everyone()
    return load_model(str(folder / "model"), data.head), True, commit


def _keep(
    teacher: PreTrainedModel,
    state: dict[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    about: dict[str, Any],
) -> None:
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
    teacher.save_pretrained(partial, state_dict=state)
    tokenizer.save_pretrained(partial)
    partial.rename(folder / "model")
    write_atomically(folder / DONE, json.dumps(about, indent=2))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def teacher_folder(recipe: Recipe, fields: dict[str, Any], rows: Any) -> Path:
    """`<teacher.folder>/<name>-<task>-<fingerprint>`: another teacher, other data or other training is another
    folder. A local teacher is known by its weights, and data by its first rows, so that changed ones are noticed."""
    data = recipe.data.model_dump(
        mode="json", exclude={"num_proc", "max_evaluation_rows", "evaluation_splits", "streaming", "augmentation"}
    )
    training = {name: value for name, value in fields.items() if name not in _NO_MATTER}
    key = {"name": recipe.teacher.name, "revision": recipe.teacher.revision, "data": data, "training": training}
    key |= {"weights": _weights_hash(Path(recipe.teacher.name)), "rows": _rows_hash(rows)}
    fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:10]
    what = Path(recipe.data.path).name if recipe.data.task == "mlm" else recipe.data.task
    return Path(recipe.teacher.folder) / f"{Path(recipe.teacher.name).name}-{what}-{fingerprint}"


def _rows_hash(rows: Any, limit: int = 20_000) -> str:
    """Of the number of rows and the first ones; of a stream the first 100."""
    count = len(rows) if hasattr(rows, "__len__") else None
    digest = hashlib.sha256(str(count).encode())
    for row in islice(rows, limit if count else 100):
        digest.update(repr((list(row["input_ids"]), row.get("labels"))).encode())
    return digest.hexdigest()


def _weights_hash(folder: Path) -> str | None:
    weights = folder / "model.safetensors"
    return checksum(weights) if weights.is_file() else None
