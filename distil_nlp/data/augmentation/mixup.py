"""Mixup of word embeddings: mixtures of two training rows, which the teacher labels.

A row's partner and the mixing coefficient are drawn when the row is read (`Mixup`), put into tensors with the batch
(`MixupCollator`), and the embeddings are mixed within each model's own forward (`EmbeddingMixer`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.signals.call import Call, current_call
from distil_nlp.signals.types import RECORDERS

PARTNER, SHARE = "mixup_partner", "mixup_share"
"""Columns of a mixed row: the other row, and λ, the coefficient of its own embeddings."""
MIXED = "mixed"
"""Column of a batch: the tensors that `EmbeddingMixer` reads from its `rows`."""
_IDS, _COEFFICIENTS, _LOOKUPS = "mixup/ids", "mixup/shares", "mixup/lookups"
MIXUP_COLUMNS = frozenset({_IDS, _COEFFICIENTS})
"""Names of those tensors, which have a row for each of the batch."""
_SALT = 3


@dataclass(frozen=True)
class Mixup:
    """Draws the rows that are mixed, and their partners: λ · E(row) + (1 − λ) · E(partner), λ ~ Beta(α, α).

    MixKD (Liang et al. 2021, arXiv:2011.00593, equation 3), after mixup (Zhang et al. 2018, arXiv:1710.09412). MixKD
    trains on each row and on a mixture; here the mixture replaces the row, so that a step does not take longer.

    Attributes:
        share: fraction of the rows that are mixed, drawn anew each epoch.
        alpha: α of the Beta distribution; the smaller, the more mixtures are nearly one of the two rows.
    """

    share: float = 0.5
    alpha: float = 0.4
    seed: int = 0

    def draw(self, epoch: int, number: int, count: int) -> tuple[int, float] | None:
        """Return (number of the partner, λ) for a row among `count` rows, or None if the row is not mixed.

        The draw is a function of (seed, epoch, number). A row is never its own partner.
        """
        generator = np.random.default_rng((self.seed, epoch, number, _SALT))
        if count < 2 or generator.random() >= self.share:
            return None
        coefficient = float(generator.beta(self.alpha, self.alpha))
        return (number + 1 + int(generator.integers(count - 1))) % count, coefficient


@dataclass
class MixupCollator:
    """Wraps a collator: pads rows and their partners to the same length, and returns them as one batch.

    A position is attended to where either row has a token. Where only one of the two has a token, it is used unmixed,
    with its segment; padding is never mixed in. Mixed rows have no label.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows = [{name: value for name, value in row.items() if name not in (PARTNER, SHARE)} for row in features]
        if not any(PARTNER in feature for feature in features):
            return self.collate(rows)
        partners = [
            {name: feature[PARTNER][name] for name in row} if PARTNER in feature else row
            for row, feature in zip(rows, features, strict=True)
        ]
        both = dict(self.collate([*rows, *partners]))
        is_mixed = torch.tensor([PARTNER in feature for feature in features])
        return _merge_partners(both, is_mixed, torch.tensor([feature.get(SHARE, 1.0) for feature in features]))


def _merge_partners(both: dict[str, Tensor], is_mixed: Tensor, coefficients: Tensor) -> dict[str, Any]:
    """Merge a batch of rows followed by their partners into a batch of mixtures.

    Args:
        is_mixed: (rows,). Not the same as a coefficient below 1: that of a mixture may be rounded to 1.
        coefficients: (rows,), λ.
    """
    count, shape = len(coefficients), both["input_ids"].shape
    attended = both.get("attention_mask", torch.ones(shape)).bool()
    added = attended[count:] & ~attended[:count]
    batch = {name: value[:count] for name, value in both.items()}
    for name in (name for name, value in both.items() if value.shape == shape):
        batch[name] = torch.where(added, both[name][count:], batch[name])
    if "labels" in batch:
        labels = batch["labels"]
        rows = is_mixed.reshape(-1, *[1] * (labels.dim() - 1))
        batch["labels"] = labels.masked_fill(rows, float("nan") if labels.is_floating_point() else -100)
    partners = torch.where(attended[count:], both["input_ids"][count:], batch["input_ids"])
    return batch | {MIXED: {_IDS: partners, _COEFFICIENTS: coefficients}}


class EmbeddingMixer:
    """Hooks that mix the word embeddings in a forward of a recorder, whenever its rows hold partners.

    It belongs to the newest `Recorder` of the model. Each member of an ensemble mixes its own embeddings.
    """

    def __init__(self, model: nn.Module):
        embeddings = [member.get_input_embeddings() for member in ensemble_members(model)]
        self._recorder, self._expected_lookups = model.__dict__[RECORDERS][-1], len(embeddings)
        self._handles = [
            model.register_forward_hook(self._finish),
            *(module.register_forward_hook(self._mix) for module in embeddings),
        ]

    def remove(self) -> None:
        """Remove every hook from the model."""
        for handle in self._handles:
            handle.remove()

    def _call(self) -> Call | None:
        """Return the forward that runs, if it is the recorder's and mixes."""
        call = current_call()
        return call if call is not None and call.recorder is self._recorder and _IDS in call.rows else None

    def _mix(self, module: nn.Module, args: tuple, own: Tensor) -> Tensor | None:
        call = self._call()
        if call is None:
            return None
        call.counts[_LOOKUPS, id(self)] += 1
        partners = module.forward(call.rows[_IDS])  # forward() itself, so that no hook is called
        return torch.lerp(partners, own, call.rows[_COEFFICIENTS][:, None, None].to(own.dtype))

    def _finish(self, module: nn.Module, args: tuple, output: Any) -> None:
        call = self._call()
        lookups = self._expected_lookups if call is None else call.counts[_LOOKUPS, id(self)]
        if lookups != self._expected_lookups:
            raise UserError(
                "data.augmentation.mixup",
                f"{type(module).__name__} to look words up once in its input embeddings",
                f"{lookups} look-ups",
                why="teacher and student would read different mixtures",
                fix="leave mixup out",
            )
