"""The recipe section `data`: rows, collator, augmentation."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.data import DataLimits, MaskingCollator, TransferSet, commit_of_data, data_module, load_splits
from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import Mixup
from distil_nlp.data.augmentation.word_replacement import WordReplacement, augment_with_replacements
from distil_nlp.data.paths import dataset_name
from distil_nlp.data.sampling import check_grouping
from distil_nlp.errors import UserError, quoted
from distil_nlp.evaluation.metrics import metric_names
from distil_nlp.models import check_words, load_config, load_tokenizer, load_with_missing_keys, usable_positions
from distil_nlp.models.positions import trained_positions
from distil_nlp.pipeline.builders.teacher import answers_of, single_teachers
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.recipe import Recipe
from distil_nlp.tasks import CUSTOM_TASKS, GLUE, OTHER_KINDS_REMEDY, TASKS, Head, Task
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_MEANT = {
    "question": "qa",
    "squad": "qa",
    "squad2": "qa",
    "multi": "multilabel",
    "multilabel": "multilabel",
    "token": "tokens",
    "ner": "tokens",
    "pos": "tags",
    "rerank": "ranking",
    "reranker": "ranking",
    "reranking": "ranking",
    "pairs": "ranking",
    "cross": "ranking",
    "embed": "embedding",
    "embeddings": "embedding",
    "similarity": "embedding",
}
"""A word of a name, such as `token_classification` → the task that it has here."""


def transfer_set(recipe: Recipe, task: Task, tokenizers: RunTokenizers, args: TrainingArguments) -> TransferSet:
    """Load and tokenise the recipe's data. Rows to choose a checkpoint by are split off where training evaluates.

    Raises:
        UserError: if a teacher lacks embeddings of its tokenizer's words, or the data cannot be loaded.
    """
    options, tokenizer = recipe.data, tokenizers.student
    for number, teacher in enumerate(single_teachers(recipe)):
        config = load_config(teacher.teacher.name, teacher.teacher.revision)
        check_words(tokenizers.of_teacher(number), config, teacher.teacher.name)
    splits = load_splits(options.path, configuration_of(recipe, task), options.revision, options.streaming)
    commit = commit_of_data(options.path, options.revision, splits)
    limits = DataLimits(
        selection_share=options.selection_share if args.eval_strategy != "no" else None,
        data_seed=DEFAULT_SEED,
        mask_seed=args.seed,
        words=options.augmentation.replacement is not None,
        answers=answers_of(recipe),
        encodings=tokenizers.further,
    )
    data = data_module(task.kind).load(splits, tokenizer, task, options, limits)
    data.revision, data.teachers = commit, tokenizers.teachers
    if data.group_size:
        check_grouping(args, data.group_size)
    _check_best_metric(args.metric_for_best_model, task, data)
    if options.augmentation.replacement is not None:
        data.split.train = _with_replaced_words(recipe, data.split.train, tokenizer, args)
        data.split.train_texts = None
    return data


def _check_best_metric(name: str | None, task: Task, data: TransferSet) -> None:
    """Raise UserError for a metric that the task has by its name, and not with this data: entities of plain tags."""
    best, own = (name or "").removeprefix("eval_"), metric_names(data.task)
    if best in metric_names(task.name) and best not in own:
        raise UserError(
            "training.metric_for_best_model",
            f"{' or '.join(own)}, as the tags make no entities",
            best,
            why="no evaluation would have it",
            fix=f"set data.task={data.task} and training.metric_for_best_model={own[0]}",
        )


def check_inputs(recipe: Recipe) -> None:
    """Raise UserError if inputs are longer than the positions of a teacher."""
    for teacher in single_teachers(recipe):
        config = load_config(teacher.teacher.name, teacher.teacher.revision)
        check_positions(recipe, usable_positions(config), teacher.teacher.name)
        _tell_trained_positions(recipe, config, teacher.teacher.name)


def configuration_of(recipe: Recipe, task: Task) -> str | None:
    """Return the dataset's configuration: the one that is named, or a GLUE task's own."""
    return recipe.data.name or (task.name if task.name in GLUE else None)


def _with_replaced_words(recipe: Recipe, rows: Any, tokenizer: PreTrainedTokenizerBase, args: TrainingArguments) -> Any:
    """Return the training rows with copies in which words are replaced; made once for all students and seeds."""
    section: Any = recipe.data.augmentation.replacement
    teacher = recipe.teacher
    name, revision = (section.model, None) if section.model else (teacher.name, teacher.revision)
    model, missing = load_with_missing_keys(name, Head("mlm"), new_head=True, revision=revision)
    if missing:
        raise UserError(
            "data.augmentation.replacement",
            f"a trained masked-LM head in {name}",
            f"none ({', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''} missing)",
            why="its proposals would be noise",
            fix=("name a model of the teacher's vocabulary that has one with data.augmentation.replacement.model=…"),
        )
    if section.model and load_tokenizer(name).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            "data.augmentation.replacement.model",
            f"the vocabulary of {teacher.name}",
            f"another in {name}",
            why="it would read other words, and propose others",
            fix="take one with the teacher's tokenizer",
        )
    check_positions(recipe, usable_positions(model.config), name)
    settings = WordReplacement(**section.model_dump(exclude={"model"}), seed=DEFAULT_SEED)
    folder_name, batch_size = f"{Path(name).name}-{recipe.data.task}", args.per_device_eval_batch_size
    model = model.to(args.device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
    return augment_with_replacements(rows, settings, model, tokenizer, name=folder_name, batch_size=batch_size)


def augmentation_arguments(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, Any]:
    """Return the arguments `cutoff` and `mixup` of a trainer, which change training rows each time they are read."""
    section = recipe.data.augmentation
    kept = [token for token in (tokenizer.cls_token_id, tokenizer.sep_token_id) if token is not None]
    return {
        "cutoff": section.cutoff and Cutoff(**section.cutoff.model_dump(), kept=kept, seed=seed),
        "mixup": section.mixup and Mixup(**section.mixup.model_dump(), seed=seed),
    }


def task_of(recipe: Recipe) -> Task:
    """Return the task table's entry, with the recipe's own columns.

    Raises:
        UserError: if there is no such task, or no columns are named for a custom dataset.
    """
    options = recipe.data
    if options.task not in TASKS:
        raise _no_such_task(options.task)
    task = TASKS[options.task]
    if task.name not in CUSTOM_TASKS:
        return task
    if task.kind.has_labels and not options.text_columns:
        raise UserError(
            "data.text_columns",
            f"the text column (or two, for pairs) for data.task={options.task}",
            "none",
            why="nothing tells what to read",
            fix="set data.text_columns=[…] and data.label_column=…",
        )
    columns = tuple(options.text_columns or task.text_columns)
    if len(columns) == 1 and task.kind.task_of_texts:
        task = TASKS[task.kind.task_of_texts]
    return dataclasses.replace(task, text_columns=columns, label_column=options.label_column)


def _no_such_task(name: str) -> UserError:
    """Return the error for a task that the table has not: a slip of the pen, or a kind that cannot be distilled."""
    meant = next((task for word, task in _MEANT.items() if word in re.split(r"[-_ ]", name.lower())), None)
    near = meant or next(iter(difflib.get_close_matches(name, TASKS, 1)), None)
    why = "there is no such task" if near else "no other kind of task can be distilled directly"
    fix = f"did you mean {near}?" if near else OTHER_KINDS_REMEDY
    return UserError("data.task", ", ".join(TASKS), quoted(name), why=why, fix=fix)


def data_name(recipe: Recipe) -> str:
    """Return the task's or the corpus's name, for names of folders."""
    kind = task_of(recipe).kind
    return dataset_name(recipe.data.path) if kind.names_corpus else recipe.data.task


def folder_name(recipe: Recipe) -> str:
    """Return the name that a run's folder has from its data: the task's, the corpus's, or that of data of one's own."""
    return dataset_name(recipe.data.path) if recipe.data.task in CUSTOM_TASKS else data_name(recipe)


def check_positions(recipe: Recipe, positions: int, model: str) -> None:
    """Raise UserError where inputs are longer than a model's positions."""
    length, multiple = recipe.data.max_length, recipe.data.pad_to_multiple_of or 1
    longest = -(-length // multiple) * multiple
    if longest > positions:
        padded = f", padded to {longest}" if longest > length else ""
        raise UserError(
            "data.max_length",
            f"at most {positions}, the positions of {model}",
            f"{length}{padded}",
            why="longer inputs have no position embedding",
            fix="lower data.max_length",
        )


def _tell_trained_positions(recipe: Recipe, config: PretrainedConfig, model: str) -> None:
    """Log where inputs may be longer than those that a model without a limit was made for."""
    trained = trained_positions(config)
    if trained is not None and recipe.data.max_length > trained:
        logger.info(f"{model} takes inputs of any length, but was made for {trained} tokens: data.max_length is longer")


def with_seed(collator: Callable, seed: int) -> Callable:
    """Return the collator with another seed, if it draws random numbers."""
    return dataclasses.replace(collator, seed=seed) if isinstance(collator, MaskingCollator) else collator
