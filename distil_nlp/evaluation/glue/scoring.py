"""Scores of a model as it is, without fine-tuning, on its own task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distil_nlp.data import TaskCollator, load_splits, load_task
from distil_nlp.errors import UserError
from distil_nlp.evaluation.class_search import find_classes
from distil_nlp.evaluation.glue.processes import processes
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import predict
from distil_nlp.models import check_words, class_mapping, load_config, load_model, load_tokenizer, usable_positions
from distil_nlp.redaction import abbreviate_home
from distil_nlp.tasks import GLUE
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)


def score_on_glue(
    model: str,
    tasks: list[str],
    data: str,
    max_length: int = 128,
    batch_size: int = 32,
    output: Path | None = None,
) -> Path | None:
    """Score a model on each task's labelled splits, log the scores, and write them to `output`.

    Args:
        model: folder or name on the Hub.
        tasks: GLUE tasks.
        data: path or name of the GLUE dataset.
        max_length: tokens of an input; longer ones are cut.
        batch_size: rows of a forward.
        output: JSON file, or None.

    Raises:
        UserError: if the model has no head for a task, or other labels.
    """
    if output is not None:
        _check_writable(output)
    state = processes()
    tokenizer, config = load_tokenizer(model), load_config(model)
    check_words(tokenizer, config, model)
    max_length = min(max_length, usable_positions(config))
    scores: dict[str, Any] = {}
    for name in tasks:
        with state.main_process_first():
            rows = load_task(load_splits(data, name), tokenizer, GLUE[name], max_length=max_length)
        classifier = load_model(model, rows.head)
        collator, splits = TaskCollator(tokenizer, rows.kind), rows.split.evaluation
        options = {"batch_size": batch_size, "device": state.device}
        outputs = predict(classifier, rows.kind, splits, collator, **options)
        scores[name] = metrics_of(rows.task, outputs)
        metrics = "  ".join(f"{metric} {value:.4f}" for metric, value in scores[name].items())
        logger.info(f"{name} (headline: {headline_metric(name)}): {metrics}")
        found = find_classes(rows.kind, rows.task, outputs, class_mapping(config, rows.head, model))
        if found:
            logger.warning(f"warning: {found.remark(model)}; if so, give it these names in its config.json")
        if output is not None and is_main_process():
            results = {"model": model, "data": data, "mode": "score", "tasks": scores}
            write_atomically(output, json.dumps(abbreviate_home(results), indent=2))
    return output


def _check_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
        file.touch()
    except OSError as error:
        raise UserError(
            "--output",
            "a file that can be written",
            str(error),
            why="scores would be lost",
        ) from error
