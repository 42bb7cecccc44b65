"""The data module of each kind of task.

A kind's module, `data/<kind.module>.py`, has two functions:

- `load(splits, tokenizer, task, options, limits) -> TransferSet`: rows, head and collator of a recipe's data;
- `labelled_rows(rows)`: the training rows that have a label.

A module for sequences also has `LABELS`, which reads the label column (`data/sequences.py`).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from distil_nlp.tasks import TaskKind, task_kind


def data_module(kind: TaskKind | str) -> ModuleType:
    """Return the module that loads rows of this kind."""
    return import_module(f"distil_nlp.data.{task_kind(kind).module}")
