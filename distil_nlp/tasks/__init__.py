"""Kinds of task: their head, columns, labels and metrics."""
