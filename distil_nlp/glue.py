"""Scoring a finished model on GLUE."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from distil_nlp.data import TaskCollator, load_splits, load_task
from distil_nlp.evaluation import headline, score
from distil_nlp.models import Head, load_model, load_tokenizer
from distil_nlp.results import write_atomically
from distil_nlp.tasks import GLUE


def score_on_glue(
    model: str,
    tasks: list[str],
    data: str,
    mode: str = "score",
    max_length: int = 128,
    batch_size: int = 32,
    output: Path | None = None,
) -> Path | None:
    """Scores a model as it is on each task's labelled splits, prints them, and writes them to `output`.

    Raises:
        UserError: if the model has no head for a task, or other labels.
    """
    tokenizer = load_tokenizer(model)
    scores: dict[str, Any] = {}
    for name in tasks:
        found = load_task(load_splits(data, name), tokenizer, GLUE[name], max_length=max_length)
        scorer = load_model(model, Head(found.kind, found.labels, found.num_labels))
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(folder, per_device_eval_batch_size=batch_size, report_to="none")
            collator = TaskCollator(tokenizer, found.kind)
            scores[name] = score(scorer, found.task, found.kind, found.split.evaluation, collator, args)
        shown = "  ".join(f"{metric} {value:.4f}" for metric, value in scores[name].items())
        print(f"{name} (headline: {headline(name)}): {shown}")
    if output is not None:
        write_atomically(output, json.dumps({"model": model, "data": data, "mode": mode, "tasks": scores}, indent=2))
    return output
