"""Mixup of word embeddings: rows that no text has, for the teacher to label.

A row, its partner and their shares are drawn where the row is read (`Mixup`), put into tensors with the batch
(`MixupCollator`), and mixed within the forward of either model, each with its own embeddings (`EmbeddingMixer`).
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

PARTNER, SHARE = "mixup_partner", "mixup_share"
"""Columns of a row that is mixed: the other row, and λ, what is left of its own embeddings."""
MIXED = "mixed"
"""Of a batch: what `EmbeddingMixer` is to find among its rows."""
_IDS, _SHARES = "mixup/ids", "mixup/shares"
_SALT = 3


@dataclass(frozen=True)
class Mixup:
    """Which rows are mixed with which: λ · E(row) + (1 − λ) · E(partner), λ ~ Beta(α, α).

    MixKD (Liang et al. 2021, arXiv:2011.00593, equation 3), after mixup (Zhang et al. 2018, arXiv:1710.09412). MixKD
    trains on each row and on a mixture; here the mixture takes the row's place, so that a step is no longer.

    Attributes:
        share: of the rows that are mixed, drawn anew each epoch.
        alpha: the smaller, the more mixtures are nearly one of the two rows.
    """

    share: float = 0.5
    alpha: float = 0.4
    seed: int = 0

    def draw(self, epoch: int, number: int, count: int) -> tuple[int, float] | None:
        """(number of the partner, λ) of one of `count` rows, or None if it stays as it is: a function of (seed, epoch,
        number). A row is never its own partner."""
        generator = np.random.default_rng((self.seed, epoch, number, _SALT))
        if count < 2 or generator.random() >= self.share:
            return None
        share = float(generator.beta(self.alpha, self.alpha))
        return (number + 1 + int(generator.integers(count - 1))) % count, share


@dataclass
class MixupCollator:
    """Wraps a collator: pads rows and their partners to one length, and puts both into one batch.

    A token is attended to where either row has one. Where only one of the two has a token, that one stands as it is,
    with its segment; padding is never mixed in. Mixed rows have no label.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows = [{name: value for name, value in one.items() if name not in (PARTNER, SHARE)} for one in features]
        if not any(PARTNER in one for one in features):
            return self.collate(rows)
        partners = [
            {name: feature[PARTNER][name] for name in row} if PARTNER in feature else row
            for row, feature in zip(rows, features, strict=True)
        ]
        both = dict(self.collate([*rows, *partners]))
        is_mixed = torch.tensor([PARTNER in one for one in features])
        return _as_one(both, is_mixed, torch.tensor([one.get(SHARE, 1.0) for one in features]))


def _as_one(both: dict[str, Tensor], is_mixed: Tensor, shares: Tensor) -> dict[str, Any]:
    """The batch of rows, and of partners behind them, as one of mixtures; is_mixed, shares: (rows,). A share may be
    rounded to 1, and is one of a mixture all the same."""
    count, shape = len(shares), both["input_ids"].shape
    attended = both.get("attention_mask", torch.ones(shape)).bool()
    added = attended[count:] & ~attended[:count]
    batch = {name: value[:count] for name, value in both.items()}
    for name in (name for name, value in both.items() if value.shape == shape):
        batch[name] = torch.where(added, both[name][count:], batch[name])
    if "labels" in batch:
        labels = batch["labels"]
        batch["labels"] = labels.masked_fill(is_mixed, float("nan") if labels.is_floating_point() else -100)
    partners = torch.where(attended[count:], both["input_ids"][count:], batch["input_ids"])
    return batch | {MIXED: {_IDS: partners, _SHARES: shares}}


class EmbeddingMixer:
    """Mixes the word embeddings of a model's forward, whenever the `rows` that it is given say what with.

    To be made after the model's `Recorder`, which takes `rows` away. Of an ensemble each member mixes its own.
    """

    def __init__(self, model: nn.Module):
        embeddings = [one.get_input_embeddings() for one in ensemble_members(model)]
        self._ids: Tensor | None = None
        self._shares: Tensor | None = None
        self._mixed, self._wanted = 0, len(embeddings)
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True),
            model.register_forward_hook(self._finish),
            *(one.register_forward_hook(self._mix) for one in embeddings),
        ]

    def remove(self) -> None:
        """Takes every hook off again."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        rows = kwargs.get("rows") or {}
        self._ids, self._shares, self._mixed = rows.get(_IDS), rows.get(_SHARES), 0

    def _mix(self, module: nn.Module, args: tuple, own: Tensor) -> Tensor | None:
        if self._ids is None:
            return None
        self._mixed += 1
        others = module.forward(self._ids)  # which calls no hook
        return torch.lerp(others, own, self._shares[:, None, None].to(own.dtype))

    def _finish(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self._ids is not None and self._mixed != self._wanted:
            raise UserError(
                "data.augmentation.mixup",
                f"{type(module).__name__} to look words up once in its input embeddings",
                f"{self._mixed} look-ups",
                why="teacher and student would see other mixtures",
                fix="leave mixup out",
            )
        self._ids = self._shares = None
