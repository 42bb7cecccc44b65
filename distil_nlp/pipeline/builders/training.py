"""The recipe section `training`: arguments, seeds, output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe import Recipe

DEFAULT_SEED = 42
_WORKERS = 2
"""Processes that prepare batches for a GPU; without one they would compete with training for the cores."""


_LOWER_IS_BETTER = frozenset({"loss", "perplexity", "mse", *TERMS})


def training_arguments(fields: dict[str, Any], folder: Path, recipe: Recipe) -> TrainingArguments:
    """Return `TrainingArguments` from a recipe's fields.

    Raises:
        UserError: with the message of transformers, for combinations that it rejects.
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
        raise UserError(
            "training",
            "fields that go together",
            reason,
        ) from error
