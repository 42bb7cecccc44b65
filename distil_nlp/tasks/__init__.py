"""Kinds of task: their head, rows, labels, metrics and words; GLUE's tasks as a table."""

from distil_nlp.tasks.base import CUSTOM_TASKS, Head, Task
from distil_nlp.tasks.glue import GLUE, TASKS
from distil_nlp.tasks.kind import TaskKind
from distil_nlp.tasks.kinds import KINDS, task_kind

__all__ = ["CUSTOM_TASKS", "GLUE", "KINDS", "TASKS", "Head", "Task", "TaskKind", "task_kind"]
