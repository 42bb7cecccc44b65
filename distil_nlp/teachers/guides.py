"""`Guides`: several teachers of which some are left out of a step (densely guided distillation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from distil_nlp.signals.types import Signals
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.ensemble_teacher import EnsembleTeacher


class Guides(EnsembleTeacher, ChangingTeacher):
    """Teachers that are each left out of a step with a probability; at least one stays, and evaluations ask all.

    Densely guided distillation (Son et al. 2021, DGKD) leaves each teacher out with equal odds, to regularise. In the
    authors' code the loss is the sum over those that stay, so that its size changes from step to step; here it is
    their mean. The draws depend on (seed, step) alone: they are the same in all processes, and after a resume.

    Args:
        model: the teachers, all of the same weight.
        caches: see `EnsembleTeacher`.
        drop: probability, in [0, 1).
        seed: of the draws.
    """

    def __init__(self, model: Ensemble, caches: Sequence[CacheConfig] | None, drop: float, seed: int):
        super().__init__(model, caches)
        self.drop, self.seed, self._drawn = drop, seed, model.mixing

    def for_trainer(self) -> Guides:
        """Return the source for one trainer: itself, or a new one where another trainer has attached it."""
        return Guides(self.model, self.caches, self.drop, self.seed) if self._sources else self

    def begin_step(self, step: int, steps: int) -> None:
        """Draw the teachers of a step."""
        self._drawn = replace(self.model.mixing, weights=self.weights_at(step))

    def signals(self, batch: dict[str, Any]) -> Signals:
        """Return the mixed logits of the step's teachers in training, where there are gradients; else of all."""
        self._mixing = self._drawn if torch.is_grad_enabled() else self.model.mixing
        return super().signals(batch)

    def weights_at(self, step: int) -> tuple[float, ...]:
        """Return the weight of each teacher in a step: 1, or 0 for one that is left out."""
        draws = np.random.default_rng((self.seed, step)).random(len(self.model.members))
        stays = (draws >= self.drop) | (draws == draws.max())
        return tuple(float(one) for one in stays)

    def _signals_of_each(self, batch: dict[str, Any]) -> dict[int, Signals]:
        if "cached_outputs" in batch:
            return super()._signals_of_each(batch)
        asked = {0, *self._mixing.active}  # the first one's layers are always compared
        return {number: source.signals(batch) for number, source in self._sources.items() if number in asked}
