"""The teacher fine-tuned on the run's own data: trained once, and reused by every run with the same settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from distil_nlp.data import TransferSet
from distil_nlp.data.fingerprint import hash_data_files, hash_json, hash_model_files, hash_values
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.models import commit_of, label_outputs, load_model
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.builders.data import data_name
from distil_nlp.pipeline.builders.teacher import label_names
from distil_nlp.pipeline.builders.training import training_arguments
from distil_nlp.recipe import Recipe
from distil_nlp.tasks import Head
from distil_nlp.training.fit import fit
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.files import altered_files, atomic_folder, read_json, weight_checksums, write_atomically
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.names import path_name

logger = get_logger(__name__)

DONE = "teacher.json"
"""File that marks a finished fine-tuning, written last: its training fields, the commit it started from, checksums."""
_MODEL = "model"

_SHARED = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16", "tf32", "use_cpu", "optim",
    "optim_args", "optim_target_modules", "activation_checkpointing", "activation_checkpointing_kwargs",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile", "train_sampling_strategy",
    "dataloader_num_workers", "dataloader_pin_memory", "logging_steps", "disable_tqdm", "ddp_backend", "deepspeed",
    "fsdp", "fsdp_config", "accelerator_config", "full_determinism",
)  # fmt: skip
"""Fields of `training` that also apply to the teacher: precision, hardware, batch size. Length, learning rate, seed and
checkpoint choice are the student's own."""

_LEARNT = ("input_ids", "token_type_ids", "labels")
"""Columns that a teacher learns from; others, such as the words of tokens, do not make it another one."""

_IRRELEVANT_FIELDS = (
    "logging_steps", "disable_tqdm", "dataloader_num_workers", "dataloader_pin_memory", "save_strategy", "save_steps",
    "save_total_limit", "report_to", "run_name", "ddp_backend", "use_cpu",
)  # fmt: skip
"""Fields that do not change the teacher."""
_IRRELEVANT_DATA = {
    "num_proc",
    "max_evaluation_rows",
    "evaluation_splits",
    "streaming",
    "augmentation",
    "labelled_share",
}
"""Keys of the data that do not change the teacher, or do so by its rows alone, which have a hash of their own."""


def finetuning_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the training fields of the teacher: some of the student's, and its own."""
    shared = {name: recipe.training[name] for name in _SHARED if name in recipe.training}
    return shared | (recipe.teacher.finetune or {})


def finetuned_teacher(
    recipe: Recipe,
    data: TransferSet,
    tokenizer: PreTrainedTokenizerBase,
    before: Callable[[PreTrainedModel], None] = lambda model: None,
) -> tuple[PreTrainedModel, bool, str | None]:
    """Return (teacher, whether it was trained now, commit that it started from if that is on the Hub).

    An unfinished fine-tuning resumes from its last checkpoint; one that another run is at is waited for.

    Args:
        recipe: the run's.
        data: its rows.
        tokenizer: the teacher's.
        before: called with the model that is about to be trained.
    """
    fields, rows = finetuning_fields(recipe), data.labelled()
    folder = teacher_folder(recipe, fields, rows)
    with claimed(folder, wait_for="the fine-tuned teacher"):
        PartialState().wait_for_everyone()  # until the main process holds the folder
        return _load_or_train(recipe, fields, data, rows, tokenizer, folder, before)


def _load_or_train(
    recipe: Recipe,
    fields: dict[str, Any],
    data: TransferSet,
    rows: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    before: Callable[[PreTrainedModel], None],
) -> tuple[PreTrainedModel, bool, str | None]:
    manifest = read_json(folder / DONE, "the teacher is fine-tuned again", weights=dict)
    altered = manifest and _altered(folder, manifest, recipe.teacher.checkpoints)
    if altered:
        logger.info(f"{folder}: {', '.join(altered)} is not as it was saved; the teacher is fine-tuned again")
    elif manifest is not None:
        return trained_teacher(folder, data.head), False, manifest.get("revision")
    logger.info(f"fine-tuning the teacher first; it is kept in {folder}")
    args = training_arguments({"save_total_limit": 2, **fields}, folder, recipe)
    set_seed(args.seed)
    model = teacher_to_train(recipe, data.head)
    before(model)
    commit = commit_of(recipe.teacher.name, recipe.teacher.revision)
    trainer = DistillationTrainer(
        model=model.train(),
        args=args,
        objective=Objective([HardLabel()], data.kind),
        train_dataset=rows,
        eval_dataset=data.split.selection,
        data_collator=data.collator,
        compute_metrics=evaluator_of(data.kind).trainer_metrics(data.task),
    )
    earlier = _earlier_names(recipe.teacher.checkpoints)
    if earlier:
        trainer.add_callback(KeepOnRoute(trainer, folder, earlier))
    fit(trainer, folder / _MODEL, tokenizer, section="teacher.finetune")
    if args.should_save:
        manifest = {**fields, "revision": commit, "weights": weight_checksums(folder / _MODEL)}
        manifest |= {"earlier": {name: weight_checksums(folder / name) for name in earlier}} if earlier else {}
        write_atomically(folder / DONE, json.dumps(manifest, indent=2))
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    trainer.accelerator.wait_for_everyone()
    return trained_teacher(folder, data.head), True, commit


def _altered(folder: Path, manifest: dict[str, Any], checkpoints: list[float] | None) -> list[str]:
    """Return the weight files of a fine-tuned teacher, and of those on the way to it, that are not as they were."""
    models = {_MODEL: manifest["weights"], **manifest.get("earlier", {})}
    lost = [name for name in _earlier_names(checkpoints) if name not in models]
    return lost + [f"{name}/{file}" for name, sums in models.items() for file in altered_files(folder / name, sums)]


def _earlier_names(checkpoints: list[float] | None) -> dict[str, float]:
    """Return the folders of the models that are kept on the way, and the fraction of the training of each."""
    return {f"{_MODEL}-{fraction:g}": fraction for fraction in checkpoints or () if fraction < 1}


class KeepOnRoute(TrainerCallback):
    """A callback that saves the model at fractions of its training.

    Args:
        trainer: its model.
        folder: parent folder of the models.
        names: folder → fraction.
    """

    def __init__(self, trainer: DistillationTrainer, folder: Path, names: dict[str, float]):
        self.trainer, self.folder, self.names = trainer, folder, names

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        for name, fraction in self.names.items():
            if state.global_step == max(round(fraction * state.max_steps), 1):
                self._save(self.folder / name)

    def _save(self, folder: Path) -> None:
        weights = self.trainer.student_state()
        if self.trainer.args.should_save:
            with atomic_folder(folder) as partial:
                self.trainer.teacher_student.student.save_pretrained(partial, state_dict=weights)


def earlier_teachers(recipe: Recipe, data: TransferSet) -> list[PreTrainedModel]:
    """Return the models on the way of the teacher's fine-tuning that teach before it; [] without."""
    names = _earlier_names(recipe.teacher.checkpoints)
    folder = teacher_folder_of(recipe, data) if names else Path()
    return [load_model(str(folder / name), data.head) for name in names]


def teacher_to_train(recipe: Recipe, head: Head) -> PreTrainedModel:
    """Return a teacher as it is before its fine-tuning, with a new head where it has none.

    Or the model that students of answers are made of.
    """
    name, revision = recipe.teacher.name, recipe.teacher.revision
    model = load_model(name, head, new_head=True, revision=revision, label_names=label_names(recipe))
    label_outputs(model.config, head)
    return model


def trained_teacher(folder: Path, head: Head) -> PreTrainedModel:
    """Return the teacher whose fine-tuning has ended in a folder."""
    return load_model(str(folder / _MODEL), head)


def teacher_folder_of(recipe: Recipe, data: TransferSet) -> Path:
    """Return the folder of the first teacher of a run."""
    return teacher_folder(recipe, finetuning_fields(recipe), data.labelled())


def is_finetuned(folder: Path) -> bool:
    """Return whether a fine-tuning has ended in a folder."""
    return (folder / DONE).is_file()


def teacher_folder(recipe: Recipe, fields: dict[str, Any], rows: Any) -> Path:
    """Return `<teacher.folder>/<name>-<task>-<fingerprint>`, which depends on teacher, data and training.

    The fingerprint includes configuration and weights of a local teacher and all rows, so that changes are noticed.
    """
    data = recipe.data.model_dump(mode="json", exclude=_IRRELEVANT_DATA)
    training = {name: value for name, value in fields.items() if name not in _IRRELEVANT_FIELDS}
    key: dict[str, Any] = {"name": recipe.teacher.name, "revision": recipe.teacher.revision}
    key |= {"data": data, "training": training}
    if recipe.teacher.checkpoints:
        key["checkpoints"] = recipe.teacher.checkpoints
    folder = Path(recipe.teacher.name).expanduser()
    key |= {"model": hash_model_files(folder) if folder.is_dir() else None, "rows": _hash_rows(recipe, rows)}
    name = path_name(f"{Path(recipe.teacher.name).name}-{data_name(recipe)}")
    return Path(recipe.teacher.folder) / f"{name}-{hash_json(key)[:10]}"


def _hash_rows(recipe: Recipe, rows: Any) -> str | None:
    """Return a hash of what the teacher learns from: all rows, or the files behind a stream."""
    if not hasattr(rows, "__len__"):
        return hash_data_files(recipe.data.path)
    return hash_values(rows.select_columns([name for name in _LEARNT if name in rows.column_names]))
