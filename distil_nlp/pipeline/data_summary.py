"""Sentences about a run's rows: how many, of which classes, how long."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_nlp.data import TransferSet, load_splits
from distil_nlp.data.paths import all_paths
from distil_nlp.data.sequences import label_reader
from distil_nlp.data.splits import limit_rows
from distil_nlp.errors import shown
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.reporting.formatting import percent, plural

_SAMPLED = 2000
"""Rows whose lengths are looked at."""
_CLASSES = 12


def rows_sentence(plan: RunPlan, data: TransferSet) -> str:
    """Return how many rows there are, and of what."""
    split = data.split
    source = ", ".join(Path(path).name or path for path in all_paths(plan.recipe.data.path))
    train = plural(len(split.train), "row") if hasattr(split.train, "__len__") else "a stream of rows"
    parts = [f"{source}: {train} to train on"]
    if data.num_labelled is not None and data.num_labelled < len(split.train):
        parts.append(f"{len(split.train) - data.num_labelled:,} of them without a label")
    if split.selection is not None:
        parts.append(f"{len(split.selection):,} to choose a checkpoint by")
    for name, rows in split.scored.items():
        kept = " (kept from the same rows)" if name == split.held_out else ""
        parts.append(f"{rows:,} to score on in {shown(name)}{kept}")
    return ", ".join(parts)


def classes_sentence(data: TransferSet) -> str:
    """Return the classes in their order, with the number of training rows, or words, of each."""
    numbers = range(data.head.num_labels or 0)
    found = data.split.train["labels"][:]
    labels = np.asarray(found if data.kind.level == "sequence" else [*chain.from_iterable(found)])
    names = data.head.labels or [*map(str, numbers)]
    counts = [int(np.sum(labels == i if labels.ndim == 1 else labels[:, i] == 1)) for i in numbers]
    listed = [f"{i} {shown(name)} ({counts[i]:,})" for i, name in enumerate(names)]
    more = len(listed) - _CLASSES
    return ", ".join(listed[:_CLASSES]) + (f" and {more} more" if more > 0 else "")


def lengths_sentence(plan: RunPlan, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return percentiles of the tokens of training rows, before they are cut to `data.max_length`."""
    options, task = plan.recipe.data, plan.task
    splits = load_splits(options.path, builders.configuration_of(plan.recipe, task), options.revision)
    rows = splits[options.train_split]
    rows = limit_rows(rows, _SAMPLED, builders.DEFAULT_SEED)
    texts = {column: [text or "" for text in rows[column]] for column in task.text_columns}
    inputs = [texts] if task.kind.joins_pairs else [{column: one} for column, one in texts.items()]
    encoded = [label_reader(task.kind).tokenise(tokenizer, one, None)["input_ids"] for one in inputs]
    lengths = np.array([len(ids) for rows in encoded for ids in rows])
    half, most, nearly_all = (int(np.percentile(lengths, share)) for share in (50, 90, 99))
    cut = (lengths > options.max_length).mean()
    return (
        f"up to {half} tokens in half of the rows, {most} in 90 %, {nearly_all} in 99 %, {lengths.max()} in all; "
        f"data.max_length={options.max_length} cuts {percent(cut) + ' of them' if cut else 'none'}"
    )
