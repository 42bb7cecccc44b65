"""The one place that knows both recipes and parts: recipe section → plain values → built object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.architecture import members
from distil_nlp.balance import Balance
from distil_nlp.cache import Cache
from distil_nlp.cutoff import Cutoff
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
from distil_nlp.errors import UserError
from distil_nlp.mixup import Mixup
from distil_nlp.models import (
    Head,
    StudentReport,
    build_student,
    check_vocabulary,
    check_words,
    choose_layers,
    load_and_tell,
    load_config,
    load_tokenizer,
    start_from_checkpoint,
    usable_positions,
)
from distil_nlp.objective import Objective
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import Change, ObjectiveSection, StudentSection
from distil_nlp.replacement import Replacement, with_copies
from distil_nlp.schedule import Schedule
from distil_nlp.tasks import GLUE, OWN, Kind, Task
from distil_nlp.term import SoftTerm, Term
from distil_nlp.terms import TERMS

DEFAULT_SEED = 42
_WORKERS = 2
"""Processes that prepare batches while a GPU works; a CPU has better use for its cores."""
_SEEDS_APART = 1000
"""Between the teachers of an ensemble: more than there are seeds of students, each of which may have its own."""


_LOWER_IS_BETTER = frozenset({"loss", "perplexity", "mse", *TERMS})


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


def seeds(recipe: Recipe) -> list[int]:
    """The seeds of the students, the run's own first.

    Raises:
        UserError: if a seed comes twice, or `training.seed` is another than the first of the list.
    """
    named, own = recipe.evaluation.seeds, recipe.training.get("seed")
    if isinstance(named, int):
        first = DEFAULT_SEED if own is None else own
        return list(range(first, first + named))
    if len(set(named)) < len(named) or own not in (None, named[0]):
        raise UserError(
            f"evaluation.seeds: expected different seeds, training.seed the first of them / got {named} and "
            f"training.seed={own} / the run's own student would not be one of them / leave training.seed out"
        )
    return named


def with_first_seed(recipe: Recipe) -> Recipe:
    """The recipe that says its own student's seed, whether or not it was written down."""
    return recipe.model_copy(update={"training": recipe.training | {"seed": seeds(recipe)[0]}})


def output_folder(recipe: Recipe, recipe_name: str) -> Path:
    """`training.output_dir`, or `runs/<recipe>-<task or corpus>-<seed>`."""
    named = recipe.training.get("output_dir")
    if named:
        return Path(named)
    what = Path(recipe.data.path).name if recipe.data.task == "mlm" else recipe.data.task
    return Path("runs") / f"{recipe_name}-{what}-{recipe.training.get('seed', DEFAULT_SEED)}"


def training_arguments(fields: dict[str, Any], folder: Path, recipe: Recipe) -> TrainingArguments:
    """`TrainingArguments` from a recipe's fields.

    Raises:
        UserError: with transformers' own words for combinations that it refuses.
    """
    defaults = {
        "per_device_eval_batch_size": recipe.evaluation.batch_size,
        "seed": DEFAULT_SEED,
        "logging_steps": 50,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_num_workers": _WORKERS if torch.cuda.is_available() else 0,
    }
    if fields.get("metric_for_best_model", "").removeprefix("eval_") in _LOWER_IS_BETTER:
        defaults["greater_is_better"] = False  # transformers knows that of losses alone
    try:
        return TrainingArguments(**{**defaults, **fields, "output_dir": str(folder)})
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"training: expected fields that go together / got: {reason}") from error


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
    model, missing = load_and_tell(name, Head("mlm"), new_head=True, revision=revision)
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
    how = Replacement(**section.model_dump(exclude={"model"}), seed=DEFAULT_SEED)
    which, size = f"{Path(name).name}-{recipe.data.task}", args.per_device_eval_batch_size
    return with_copies(rows, how, model.to(args.device), tokenizer, name=which, batch_size=size)


def changes_of_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, Any]:
    """What a trainer does to the training rows each time they are read: `cutoff` and `mixup`, or None for either."""
    section = recipe.data.augmentation
    kept = [token for token in (tokenizer.cls_token_id, tokenizer.sep_token_id) if token is not None]
    return {
        "cutoff": section.cutoff and Cutoff(**section.cutoff.model_dump(), kept=kept, seed=seed),
        "mixup": section.mixup and Mixup(**section.mixup.model_dump(), seed=seed),
    }


def refuse_keys_without_effect(recipe: Recipe) -> None:
    """Keys that the task at hand would not look at are mistakes, not decoration.

    Raises:
        UserError: naming them all.
    """
    data, is_mlm = recipe.data, recipe.data.task == "mlm"
    soft = {
        name: section
        for name, term in TERMS.items()
        if issubclass(term, SoftTerm)
        and (section := getattr(recipe.objective, name)) is not None
        and "rows" in type(section).model_fields
    }
    idle = {
        "data.masking": not is_mlm and _is_set(data, "masking"),
        **{f"objective.{name}.rows": not is_mlm and _is_set(section, "rows") for name, section in soft.items()},
        "data.held_out_share": not is_mlm and _is_set(data, "held_out_share"),
        "data.shuffle_buffer": not data.streaming and _is_set(data, "shuffle_buffer"),
        "data.text_columns": data.task in GLUE and _is_set(data, "text_columns"),
        "data.label_column": (is_mlm or data.task in GLUE) and _is_set(data, "label_column"),
        "data.pad_to_multiple_of": is_mlm and _is_set(data, "pad_to_multiple_of"),
        "a second of data.text_columns": is_mlm and len(data.text_columns or []) > 1,
        "teacher.cache.top_k": not is_mlm
        and recipe.teacher.cache is not None
        and _is_set(recipe.teacher.cache, "top_k"),
        "balance.every": recipe.balance.kind != "gradient_norm" and _is_set(recipe.balance, "every"),
        "run.gradients_every": recipe.balance.kind == "gradient_norm" and _is_set(recipe.run, "gradients_every"),
        "balance.decay": recipe.balance.kind == "fixed" and _is_set(recipe.balance, "decay"),
        "student.revision": recipe.student.name is None and _is_set(recipe.student, "revision"),
    }
    named = [key for key, is_idle in idle.items() if is_idle]
    if named:
        raise UserError(
            f"expected keys that data.task={data.task} looks at / got {', '.join(named)} too / they would have no "
            "effect / leave them out"
        )


def _configuration(task: str) -> str | None:
    return task if task in GLUE else None


def task_kind(recipe: Recipe) -> Kind:
    return "mlm" if recipe.data.task == "mlm" else _task(recipe).kind


def _task(recipe: Recipe) -> Task:
    """The task table's entry, with the recipe's own columns.

    Raises:
        UserError: if there is no such task, or no columns for a dataset of one's own.
    """
    data, known = recipe.data, GLUE | OWN
    if data.task not in known:
        raise UserError(f"data.task: expected mlm, {', '.join(known)} / got {data.task!r} / there is no such task")
    task = known[data.task]
    if data.task in OWN and not data.text_columns:
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


def student_from(
    recipe: Recipe, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, head: Head
) -> tuple[PreTrainedModel, StudentReport]:
    """The student, built from the teacher or loaded."""
    section = recipe.student
    if section.name is not None:
        ignored = [key for key in ("layers", "num_layers", "architecture", "config") if _is_set(section, key)]
        if ignored:
            raise UserError(
                f"student.name: expected no other description of the student / got {', '.join(ignored)} too / the "
                "checkpoint tells its own / leave one of the two out"
            )
        check_vocabulary(tokenizer, load_tokenizer(section.name, section.revision))
        return start_from_checkpoint(section.name, head, section.revision)
    teacher = members(teacher)[0]
    layers = choose_layers(section.layers, teacher.config.num_hidden_layers, section.num_layers)
    depth = section.num_layers or max(teacher.config.num_hidden_layers // 2, 1)
    return build_student(
        teacher, layers, num_layers=depth, architecture=section.architecture, config_changes=section.config
    )


def _is_set(section: Any, key: str) -> bool:
    """Whether a recipe gives another value than the default."""
    return getattr(section, key) != type(section).model_fields[key].default


def _check_positions(recipe: Recipe, positions: int, whose: str) -> None:
    length, multiple = recipe.data.max_length, recipe.data.pad_to_multiple_of or 1
    longest = -(-length // multiple) * multiple
    if longest > positions:
        padded = f", padded to {longest}" if longest > length else ""
        raise UserError(
            f"data.max_length: expected at most {positions}, the positions of {whose} / got {length}{padded} / longer "
            "inputs have no position embedding / lower data.max_length"
        )


def check_student(student: PreTrainedModel, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """The student can number the tokens' positions and knows all words.

    Raises:
        UserError: if `data.max_length` or the vocabulary is too large for it.
    """
    _check_positions(recipe, usable_positions(student.config), "the student")
    check_words(tokenizer, student.config, "the student")


def objective_from(recipe: Recipe, kind: Kind) -> Objective:
    """The recipe's terms, with their schedules and what balances them."""
    section, balance = recipe.objective, recipe.balance
    terms = [_term(name, getattr(section, name)) for name in TERMS if getattr(section, name)]
    return Objective(terms, kind, None if balance.kind == "fixed" else Balance(**balance.model_dump()))


def _term(name: str, section: Any) -> Term:
    fields = section.model_dump(exclude={"schedule"})
    for scheduled in type(section.schedule).model_fields:
        fields[scheduled] = _schedule(fields[scheduled], getattr(section.schedule, scheduled))
    return TERMS[name](**fields)


def _schedule(start: float, change: Change | None) -> Schedule:
    return Schedule(start) if change is None else Schedule(start, change.end, change.shape)


def labels_alone() -> ObjectiveSection:
    """The objective without a teacher."""
    return ObjectiveSection.model_validate({"hard_label": {}})


def random_student(section: StudentSection) -> StudentSection:
    """The same student with random weights."""
    depth = section.num_layers or (len(section.layers) if isinstance(section.layers, list) else None)
    return section.model_copy(update={"layers": "random", "num_layers": depth})


def reseeded(collator: Callable, seed: int) -> Callable:
    """The collator with another seed for what it draws."""
    return dataclasses.replace(collator, seed=seed) if isinstance(collator, MaskingCollator) else collator


def single_teachers(recipe: Recipe) -> list[Recipe]:
    """The recipe of each teacher by itself; of an ensemble all are fine-tuned, with seeds of their own."""
    section, found = recipe.teacher, []
    for number, name in enumerate([section.name, *(section.ensemble or [])]):
        tuning = section.finetune
        if tuning is not None and number:
            tuning = {**tuning, "seed": tuning.get("seed", DEFAULT_SEED) + _SEEDS_APART * number}
        own = {"name": name, "ensemble": None, "finetune": tuning, "revision": None if number else section.revision}
        found.append(recipe.model_copy(update={"teacher": section.model_copy(update=own)}))
    return found


def teacher_cache(recipe: Recipe) -> Cache | None:
    """Where the teacher's answers are kept, if they are; a folder's name begins with teacher and task."""
    section, name = recipe.teacher.cache, f"{Path(recipe.teacher.name).name}-{recipe.data.task}"
    return section and Cache(name=name, **section.model_dump())


def teacher_dtype(recipe: Recipe) -> torch.dtype:
    """The teacher's own precision: bfloat16 where the student trains in it, since accelerate does not autocast
    the teacher."""
    named = recipe.teacher.dtype
    if named == "auto":
        return torch.bfloat16 if recipe.training.get("bf16") else torch.float32
    return getattr(torch, named)
