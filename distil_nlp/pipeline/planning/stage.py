"""`PlannedStage` and `RunCosts`: what a run will take, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from distil_nlp.pipeline.planning.memory import TrainingMemory

StageKind = Literal[
    "start", "teacher", "cache", "link", "cutting", "student", "baseline", "scoring", "measuring", "report"
]


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run, all times that it is done together.

    Attributes:
        name: for people.
        kind: what it is for.
        seconds: that it takes.
        times: number of times that it is done, such as seeds.
        steps: optimiser steps of each time; None where nothing is trained.
        tokens: without padding, of all times together; None where nothing is trained or read.
        flops: of all times together; None where nothing runs or operations cannot be counted.
        is_done: whether an earlier run has done it already; it then takes no time.
        parts: seconds of its parts, by name; those of the teacher's forward are among those of the steps.
        terms: seconds of each term's own sums, their backward aside; also among those of the steps.
        run: title of the run that it belongs to where that is not the recipe's own: a link, or a study's cell.
    """

    name: str
    kind: StageKind
    seconds: float
    times: int = 1
    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None
    is_done: bool = False
    parts: dict[str, float] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)
    run: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the stage by name."""
        return asdict(self)


@dataclass(frozen=True)
class DiskUse:
    """Bytes on disk.

    Attributes:
        checkpoints: most at once.
        models: students, fine-tuned teachers and links that are kept.
        caches: of teachers' outputs.
    """

    checkpoints: int = 0
    models: int = 0
    caches: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.checkpoints + self.models + self.caches

    def to_dict(self) -> dict[str, int]:
        """Return the parts and their total by name."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class RunCosts:
    """What a run, or several, will take.

    Attributes:
        stages: in the order in which they are done.
        memory: of the training that takes most of it; None if nothing is trained.
        largest: the name of that training.
        disk: at its fullest.
        peak_bytes: memory of this process while steps were probed, as the system counts it.
        advice: sentences on what takes most, and what to change.
    """

    stages: Sequence[PlannedStage]
    memory: TrainingMemory | None
    largest: str
    disk: DiskUse
    peak_bytes: int
    advice: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def flops(self) -> float | None:
        """Of all trainings and caches; None if those of one cannot be counted."""
        trained = [stage for stage in self.stages if stage.tokens is not None]
        return None if any(one.flops is None for one in trained) else sum(one.flops or 0 for one in self.stages)

    @property
    def tokens(self) -> int:
        """Of all trainings."""
        return sum(stage.tokens or 0 for stage in self.stages if stage.steps is not None)

    @property
    def steps(self) -> int:
        """Of all trainings."""
        return sum((stage.steps or 0) * stage.times for stage in self.stages)
