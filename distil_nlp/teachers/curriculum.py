"""`TeacherCurriculum`: the teacher's own checkpoints teach one after another, the least trained first (RCO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from distil_nlp.data.encodings import OWN
from distil_nlp.data.row_sets import RowCollator
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import Signals
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.source import TeacherSource


class TeacherCurriculum(ChangingTeacher):
    """K models of which number ⌊K · step / steps⌋ teaches, so that each has an equal share of the student's steps.

    Route-constrained optimisation (Jin et al. 2019, arXiv:1904.09149) takes models from the route that a teacher's
    training went; its student passes them in their order. The step alone tells which one teaches, so that nothing has
    to be kept for a resume. Only that one is on the device. Evaluations ask the one that teaches at the time, so that
    values of terms before and after a switch do not compare.

    Args:
        teachers: models of equal shape, the last one the teacher that is scored.
        encoding: the tokens that they read, where they are not the student's; see `distil_nlp.data.encodings`.
    """

    def __init__(self, teachers: Sequence[PreTrainedModel], encoding: str = OWN):
        self._sources: list[FrozenTeacher] = [FrozenTeacher(teacher, encoding) for teacher in teachers]
        self._active, self._device = 0, torch.device("cpu")
        self.model = teachers[-1]
        self.inputs = frozenset().union(*(source.inputs for source in self._sources))

    @property
    def models(self) -> list[PreTrainedModel]:
        return [source.model for source in self._sources]

    @property
    def encodings(self) -> list[str]:
        return [source.encoding for source in self._sources]

    def attach(self, objective: Objective, mixes: bool = False) -> None:
        """Freeze all models and put hooks on them."""
        for source in self._sources:
            source.attach(objective, mixes)

    def prepare(self, rows: Any, collator: RowCollator, **options: Any) -> None:
        """Move the model that teaches to the device."""
        self.to(options["device"])

    def begin_step(self, step: int, steps: int) -> None:
        """Choose the model that teaches at a step."""
        number = min(len(self._sources) * step // steps, len(self._sources) - 1)
        if number != self._active:
            self._active = number
            self.to(self._device)

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Run the model that teaches."""
        return self._sources[self._active].signals(batch)

    def to(self, device: torch.device | str) -> None:
        """Move the model that teaches to a device, and the others to the CPU."""
        self._device = torch.device(device)
        for number, source in enumerate(self._sources):
            if number != self._active:
                source.to("cpu")
        self._sources[self._active].to(self._device)

    def for_trainer(self) -> TeacherSource:
        """Return itself, or one of the same models where another trainer has attached this one."""
        is_free = all(source.for_trainer() is source for source in self._sources)
        return self if is_free else TeacherCurriculum(self.models, self.encodings[0])

    def remove_hooks(self) -> None:
        """Take every hook off the models, and give them back their modes."""
        for source in self._sources:
            source.remove_hooks()
