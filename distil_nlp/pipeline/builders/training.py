"""The recipe section `training`: arguments, seeds, output folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from distil_nlp.recipe import Recipe
from distil_nlp.training.rehearsal import REFUSALS, refused_field, without

DEFAULT_SEED = 42
_WORKERS = 2
"""Processes that prepare batches for a GPU; without one they would compete with training for the cores."""


_LOWER_IS_BETTER = frozenset({"loss", "perplexity", "mse"})


def training_arguments(
    fields: dict[str, Any], folder: Path, recipe: Recipe, key: Callable[[str], str] = "training.{}".format
) -> TrainingArguments:
    """Return `TrainingArguments` from a recipe's fields.

    Args:
        key: the name of a field → its recipe key.

    Raises:
        UserError: with the message of transformers, for combinations that it rejects.
    """

    def build(fields: dict[str, Any]) -> TrainingArguments:
        return TrainingArguments(**{**_defaults(fields, recipe), **fields, "output_dir": str(folder)})

    try:
        return build(fields)
    except REFUSALS as error:
        raise refused_field(_blamed(fields, build), fields, key, error) from error


def _defaults(fields: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    defaults = {
        "per_device_eval_batch_size": recipe.evaluation.batch_size,
        "seed": DEFAULT_SEED,
        "logging_steps": 50,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_num_workers": _WORKERS if torch.cuda.is_available() else 0,
    }
    metric = (fields.get("metric_for_best_model") or "").removeprefix("eval_")
    if is_lower_better(metric, recipe):
        defaults["greater_is_better"] = False  # transformers knows that of losses alone
    return defaults


def is_lower_better(metric: str, recipe: Recipe) -> bool:
    """Return whether a metric of the evaluations, named without `eval_`, is an error or a loss."""
    return metric in _LOWER_IS_BETTER or metric in recipe.terms


def _blamed(fields: dict[str, Any], build: Callable[[dict[str, Any]], TrainingArguments]) -> str | None:
    """Return the field without which transformers takes the others, or None."""
    for name in fields:
        try:
            build(without(fields, name))
        except REFUSALS:
            continue
        return name
    return None
