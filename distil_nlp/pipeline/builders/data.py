"""The one place that knows both recipes and parts: recipe section → plain values → built object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.data import (
    MaskingCollator,
    Split,
    TaskCollator,
    commit_of_data,
    labelled_rows,
    load_corpus,
    load_splits,
    load_task,
    token_frequencies,
)
from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import Mixup
from distil_nlp.data.augmentation.word_replacement import WordReplacement, augment_with_replacements
from distil_nlp.errors import UserError
from distil_nlp.models import (
    check_words,
    load_config,
    load_tokenizer,
    load_with_missing_keys,
    usable_positions,
)
from distil_nlp.pipeline.builders.teacher import single_teachers
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.recipe import Recipe
from distil_nlp.tasks.base import CUSTOM_TASKS, Head, Kind, Task
from distil_nlp.tasks.glue import GLUE


@dataclass
class TransferSet:
    """The data of a run: rows, what head they need, how rows become batches, and the commit on the Hub they are of."""

    task: str
    head: Head
    split: Split
    collator: Callable
    revision: str | None = None

    def labelled(self) -> Any:
        """The training rows that labels alone can teach: all text, and a task's labelled rows.

        Raises:
            UserError: if there are none.
        """
        rows = self.split.train if self.head.kind == "mlm" else labelled_rows(self.split.train)
        if self.head.kind != "mlm" and not len(rows):
            raise UserError(
                "data.label_column: expected some labelled training rows / got none / labels could teach nothing / "
                "leave out teacher.finetune and the baseline no_distillation, or label some rows"
            )
        return rows


def transfer_set(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, args: TrainingArguments) -> TransferSet:
    """The recipe's data, tokenised. Rows to choose a checkpoint by are set aside where training evaluates.

    Raises:
        UserError: if inputs are longer than the models' positions, and what the loaders find.
    """
    data = recipe.data
    for one in single_teachers(recipe):
        config = load_config(one.teacher.name, one.teacher.revision)
        _check_positions(recipe, usable_positions(config), one.teacher.name)
        check_words(tokenizer, config, one.teacher.name)
    splits = load_splits(data.path, data.name or _configuration(data.task), data.revision, data.streaming)
    commit = commit_of_data(data.path, data.revision, splits)
    common = {
        "train_split": data.train_split,
        "evaluation_splits": data.evaluation_splits,
        "max_length": data.max_length,
        "selection_share": data.selection_share if args.eval_strategy != "no" else None,
        "max_train_rows": data.max_train_rows,
        "max_evaluation_rows": data.max_evaluation_rows,
        "num_proc": data.num_proc,
        "seed": DEFAULT_SEED,
    }
    if data.task == "mlm":
        column = (data.text_columns or ["text"])[0]
        common |= {"held_out_share": data.held_out_share, "shuffle_buffer": data.shuffle_buffer}
        split = load_corpus(splits, tokenizer, text_column=column, **common)
        return TransferSet("mlm", Head("mlm"), split, _masking(recipe, tokenizer, split, args.seed), commit)
    if data.streaming:
        raise UserError("data.streaming: expected false for a task / got true / tasks fit in memory / leave it out")
    replaces = data.augmentation.replacement is not None
    found = load_task(splits, tokenizer, _task(recipe), words=replaces, **common)
    if replaces:
        found.split.train = _with_replaced_words(recipe, found.split.train, tokenizer, args)
    head = Head(found.kind, found.labels, found.num_labels)
    collator = TaskCollator(tokenizer, found.kind, data.pad_to_multiple_of)
    return TransferSet(found.task, head, found.split, collator, commit)


def _with_replaced_words(recipe: Recipe, rows: Any, tokenizer: PreTrainedTokenizerBase, args: TrainingArguments) -> Any:
    """The training rows and their copies; whoever comes first makes them, for all students and seeds."""
    section, teacher = recipe.data.augmentation.replacement, recipe.teacher
    name, revision = (section.model, None) if section.model else (teacher.name, teacher.revision)
    model, missing = load_with_missing_keys(name, Head("mlm"), new_head=True, revision=revision)
    if missing:
        raise UserError(
            f"data.augmentation.replacement: expected a trained masked-LM head in {name} / got none "
            f"({', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''} missing) / its proposals would be "
            "noise / name a model of the teacher's vocabulary that has one with data.augmentation.replacement.model=…"
        )
    if section.model and load_tokenizer(name).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"data.augmentation.replacement.model: expected the vocabulary of {teacher.name} / got another in {name} / "
            "it would read other words, and propose others / take one with the teacher's tokenizer"
        )
    _check_positions(recipe, usable_positions(model.config), name)
    how = WordReplacement(**section.model_dump(exclude={"model"}), seed=DEFAULT_SEED)
    which, size = f"{Path(name).name}-{recipe.data.task}", args.per_device_eval_batch_size
    return augment_with_replacements(rows, how, model.to(args.device), tokenizer, name=which, batch_size=size)


def augmentation_arguments(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, Any]:
    """What a trainer does to the training rows each time they are read: `cutoff` and `mixup`, or None for either."""
    section = recipe.data.augmentation
    kept = [token for token in (tokenizer.cls_token_id, tokenizer.sep_token_id) if token is not None]
    return {
        "cutoff": section.cutoff and Cutoff(**section.cutoff.model_dump(), kept=kept, seed=seed),
        "mixup": section.mixup and Mixup(**section.mixup.model_dump(), seed=seed),
    }


def _configuration(task: str) -> str | None:
    return task if task in GLUE else None


def task_kind(recipe: Recipe) -> Kind:
    return "mlm" if recipe.data.task == "mlm" else _task(recipe).kind


def _task(recipe: Recipe) -> Task:
    """The task table's entry, with the recipe's own columns.

    Raises:
        UserError: if there is no such task, or no columns for a dataset of one's own.
    """
    data, known = recipe.data, GLUE | CUSTOM_TASKS
    if data.task not in known:
        raise UserError(f"data.task: expected mlm, {', '.join(known)} / got {data.task!r} / there is no such task")
    task = known[data.task]
    if data.task in CUSTOM_TASKS and not data.text_columns:
        raise UserError(
            f"data.text_columns: expected the text column (or two, for pairs) for data.task={data.task} / got none / "
            "nothing tells what to read / set data.text_columns=[…] and data.label_column=…"
        )
    if data.task in GLUE:
        return task
    return dataclasses.replace(task, text_columns=tuple(data.text_columns), label_column=data.label_column)


def _masking(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, split: Split, seed: int) -> MaskingCollator:
    masking, log_weights = recipe.data.masking, None
    if masking.rare_token_power:
        log_weights = -masking.rare_token_power * np.log(token_frequencies(split.train, len(tokenizer)))
    return MaskingCollator(tokenizer, masking.probability, masking.whole_words, log_weights, seed)


def _check_positions(recipe: Recipe, positions: int, whose: str) -> None:
    length, multiple = recipe.data.max_length, recipe.data.pad_to_multiple_of or 1
    longest = -(-length // multiple) * multiple
    if longest > positions:
        padded = f", padded to {longest}" if longest > length else ""
        raise UserError(
            f"data.max_length: expected at most {positions}, the positions of {whose} / got {length}{padded} / longer "
            "inputs have no position embedding / lower data.max_length"
        )


def with_seed(collator: Callable, seed: int) -> Callable:
    """The collator with another seed for what it draws."""
    return dataclasses.replace(collator, seed=seed) if isinstance(collator, MaskingCollator) else collator
