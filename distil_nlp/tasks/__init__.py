"""Kinds of task, with their heads, rows, labels, metrics and wording; and the table of GLUE tasks."""

from distil_nlp.tasks.base import CUSTOM_TASKS, OTHER_KINDS_REMEDY, Head, Task
from distil_nlp.tasks.glue import GLUE, TASKS
from distil_nlp.tasks.kind import TaskKind
from distil_nlp.tasks.kinds import KINDS, task_kind

__all__ = ["CUSTOM_TASKS", "GLUE", "KINDS", "OTHER_KINDS_REMEDY", "TASKS", "Head", "Task", "TaskKind", "task_kind"]
