"""The report of a student's parameters: what was copied from the teacher, what is new, what found no place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class StudentReport:
    """The origin of the student's parameters.

    Attributes:
        layers: the teacher's block for each of the student's, or None if no block was copied.
        copied, new: names of the parameters that were copied, and of those that were newly initialised.
        dropped: names of the teacher's parameters that found no place, other than those of blocks left out by plan.
        source: the checkpoint the student started from, if it was not made of the teacher.
        revision: its commit, if it is on the Hub.
        widened: names of the parameters among `copied` that are larger than the teacher's.
        logit_difference: of a student that is deeper or wider than its teacher, the largest difference of the two
            models' logits on a few tokens, before training; None for others.
        pruning: what was kept of the teacher's parts, and how, if it was pruned; see `PrunedStart` of `results.json`.
        embeddings: of factorised ones, their features (`size`) and the share of variance that they keep (`variance`).
        start: a sentence on whether that student starts as its teacher, and why not; None for others.
    """

    layers: list[int] | None
    copied: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    source: str | None = None
    revision: str | None = None
    widened: list[str] = field(default_factory=list)
    logit_difference: float | None = None
    start: str | None = None
    pruning: dict[str, Any] | None = None
    embeddings: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        start = {"checkpoint": self.source, "revision": self.revision}
        return {
            "teacher_layers": self.layers,
            "copied": len(self.copied),
            "new": self.new,
            "dropped": self.dropped,
            **start,
            "widened": len(self.widened),
            "logit_difference": self.logit_difference,
            "start": self.start,
            **({"pruning": self.pruning} if self.pruning else {}),
            **({"embeddings": self.embeddings} if self.embeddings else {}),
        }

    def __str__(self) -> str:
        source = f"from {self.source or 'no teacher layer'}"
        if self.layers is not None:
            source = f"from teacher layers {self.layers}"
        counts = f"{len(self.copied)} tensors copied, {len(self.new)} new{_examples(self.new)}"
        dropped = f"; {len(self.dropped)} of the teacher's found no place of their own{_examples(self.dropped)}"
        wider = f"; {len(self.widened)} widened by copies of their neurons" if self.widened else ""
        start = f"; it {self.start}" if self.start else ""
        return f"student {source}: {counts}{wider}{dropped if self.dropped else ''}{start}"


def _examples(names: list[str]) -> str:
    return f" ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})" if names else ""
