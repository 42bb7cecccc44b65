"""The recipe section `evaluation.probe`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.data import DataLimits, data_module, labelled_rows, load_splits
from distil_nlp.errors import UserError, quoted
from distil_nlp.evaluation.linear_probe import LinearProbe
from distil_nlp.pipeline.builders.data import configuration_of, task_of
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import DataSection, ProbeSection
from distil_nlp.tasks import CUSTOM_TASKS, TASKS, Task

_SHARED_KEYS = ("path", "name", "revision", "task", "text_columns", "label_column")
"""Keys that mean what they mean in `data`."""
_DATA_KEY = re.compile(rf"\bdata\.({'|'.join(_SHARED_KEYS)})\b")
_OTHER_KEY = re.compile(r"\bdata\.\w+")
_FILES_REMEDY = "name the labelled files of each part: evaluation.probe.path={train: …, test: …}"


def probe_of(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, args: TrainingArguments) -> LinearProbe | None:
    """Return the probe of a recipe with its rows; None without one.

    Raises:
        UserError: for data that cannot be read, or labels of one class.
    """
    section = recipe.evaluation.probe
    if section is None:
        return None
    own = _recipe_of_probe(recipe, section)
    with _naming_probe():
        task = task_of(own)
        splits = load_splits(section.path, configuration_of(own, task), section.revision)
        data = data_module(task.kind).load(splits, tokenizer, task, own.data, DataLimits(None, DEFAULT_SEED, args.seed))
        train, test = labelled_rows(data.split.train), next(iter(data.split.evaluation.values()))
    if len(set(train["labels"][:])) < 2:
        raise UserError(
            "evaluation.probe.max_rows",
            "rows of two classes or more",
            f"{len(train):,} of one",
            why="there is nothing to classify",
            fix="raise it, or give other data",
        )
    batch_size = args.per_device_eval_batch_size
    return LinearProbe(section.task, train, test, data.collator, section.pooling, batch_size)


def validate_probe(recipe: Recipe) -> None:
    """Raise UserError for a task that the probe has no classifier for, and keys that the task does not read."""
    section = recipe.evaluation.probe
    if section is None:
        return
    known = [name for name, task in TASKS.items() if _is_classification(task)]
    if section.task not in known:
        raise UserError(
            "evaluation.probe.task",
            f"one of {', '.join(known)}",
            quoted(section.task),
            why="the probe is a classifier of one class a text",
            fix="name such a task and its data",
        )
    with _naming_probe():
        task_of(_recipe_of_probe(recipe, section))
    unused = [key for key in ("text_columns", "label_column") if key in section.model_fields_set]
    if section.task not in CUSTOM_TASKS and unused:
        raise UserError(
            f"evaluation.probe.{unused[0]}",
            f"none for {section.task}, which has columns of its own",
            quoted(getattr(section, unused[0])),
            why="it would have no effect",
            fix="leave it out, or set evaluation.probe.task=classification",
        )


def _is_classification(task: Task) -> bool:
    kind = task.kind
    return kind.has_labels and kind.level == "sequence" and kind.output == "distribution"


def _recipe_of_probe(recipe: Recipe, section: ProbeSection) -> Recipe:
    """Return the recipe with the probe's data in the place of its own."""
    shared = {key: getattr(section, key) for key in _SHARED_KEYS}
    limits: dict[str, Any] = {"max_train_rows": section.max_rows, "max_evaluation_rows": section.max_rows}
    data = DataSection(**shared, **limits, max_length=recipe.data.max_length)
    return recipe.model_copy(update={"data": data})


@contextmanager
def _naming_probe() -> Iterator[None]:
    """Within this context, errors about `data` are about `evaluation.probe`."""
    try:
        yield
    except UserError as error:
        if error.expected is None:
            raise
        where, fix = error.where or "", _DATA_KEY.sub(r"evaluation.probe.\1", error.fix or "")
        place = re.sub(r"^data\b", "evaluation.probe", where) or "evaluation.probe"
        fix = _FILES_REMEDY if _OTHER_KEY.search(fix) else fix
        raise UserError(place, error.expected, error.got, error.why, fix or None) from error
