"""Sparsity: weights of the student's linear layers are set to zero in training, more and more of them.

Magnitude pruning (Zhu & Gupta 2017, arXiv:1710.01878) drops the weights of the smallest |w|, movement pruning (Sanh,
Wolf, Rush 2020, arXiv:2005.07683) those of the lowest score S, which grows where training moves a weight away from
zero: with W' = W ⊙ M the weights that the model computes with,

    S ← S − α · ∂L/∂W' ⊙ W,

the straight-through gradient of the mask, summed over the steps. A dropped weight gets no gradient and stays as it was,
so that it may come back; its score goes on. Between the fractions `start` and `end` of training, the share of zeros
follows the first paper's cubic schedule,

    s(t) = s_f · (1 − (1 − (t − t₀) ÷ (t₁ − t₀))³),

in each matrix alike; from then on the masks stay. Of a pattern such as 2:4 (Mishra et al. 2021, arXiv:2104.08378), two
of four neighbours along the input dimension are kept in the end, and until then the lowest of the others are dropped.

Unlike the authors of movement pruning, whose masks follow the scores to the end and whose scores have a learning rate
of their own: here scores start at 0 and have no weight decay, so that with Adam their order, which is all that counts,
does not depend on that rate.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.models.linear_layers import encoder_linear_layers
from distil_nlp.signals.types import SignalRequest
from distil_nlp.training.effective_weights import LinearChange, refuse_beside
from distil_nlp.training.extension import Extension, TrainingSetup

SPARSITY = "student.sparsity"
PRUNING_SCORES = "pruning_scores"
"""Name of the scores of movement pruning among the modules that the student carries in training."""
MASKS = "masks.safetensors"
"""File of a checkpoint with the masks: which weights the student computes with."""


@dataclass(frozen=True)
class Sparsity(Extension):
    """Settings of sparsity.

    Attributes:
        share: fraction of zeros in the end, in (0, 1); or
        pattern: `N:M`, N weights kept of M neighbours.
        by: `magnitude` or `movement`.
        start, end: fractions of training between which the share grows from 0.
        every: steps between two updates of the masks.

    Raises:
        UserError: for neither or both of share and pattern, and for values out of these bounds.
    """

    undecayed: ClassVar[frozenset[str]] = frozenset({PRUNING_SCORES})

    share: float | None = None
    pattern: str | None = None
    by: Literal["magnitude", "movement"] = "magnitude"
    start: float = 0.1
    end: float = 0.7
    every: int = 10

    def __post_init__(self) -> None:
        if (self.share is None) == (self.pattern is None):
            got = "neither" if self.share is None else "both"
            raise _wrong("", "one of share (a fraction) and pattern (such as 2:4)", got)
        if self.share is not None and not 0 < self.share < 1:
            raise _wrong("share", "a fraction above 0 and below 1", f"{self.share:g}")
        if self.pattern is not None and not (re.fullmatch(r"[1-9]\d*:\d+", self.pattern) and self.kept < self.among):
            raise _wrong("pattern", "N:M, the number kept of M neighbours, N below M, such as 2:4", self.pattern)
        if self.by not in ("magnitude", "movement"):
            raise _wrong("by", "magnitude or movement", str(self.by))
        if not 0 <= self.start < self.end <= 1:
            raise _wrong("start", "a start below the end, both from 0 to 1", f"{self.start:g} and {self.end:g}")
        if self.every < 1:
            raise _wrong("every", "1 step or more", str(self.every))

    @property
    def kept(self) -> int:
        """N of a pattern."""
        return int(str(self.pattern).split(":")[0])

    @property
    def among(self) -> int:
        """M of a pattern."""
        return int(str(self.pattern).split(":")[1])

    @property
    def target(self) -> float:
        """The share of zeros in the end."""
        return 1 - self.kept / self.among if self.share is None else self.share

    def bounds(self, max_steps: int) -> tuple[int, int]:
        """Return the steps, from 0, at which the share begins to grow and from which it is the whole."""
        return round(self.start * (max_steps - 1)), round(self.end * (max_steps - 1))

    def share_at(self, step: int, max_steps: int) -> float:
        """Return the share of zeros that the schedule has for a step, from 0."""
        first, last = self.bounds(max_steps)
        if step >= last:
            return self.target
        return self.target * (1 - (1 - max(step - first, 0) / (last - first)) ** 3)

    def is_due(self, step: int, max_steps: int) -> bool:
        """Return whether the masks are updated before a step."""
        first, last = self.bounds(max_steps)
        return step == last or (first < step < last and (step - first) % self.every == 0)

    def validate(self, setup: TrainingSetup) -> None:
        validate_sparsity(setup.request, setup.is_sharded, setup.is_widened)

    def modules(self, setup: TrainingSetup) -> dict[str, nn.Module]:
        return {PRUNING_SCORES: pruning_scores(setup.student)} if self.by == "movement" else {}

    def state_bytes(self, student: PreTrainedModel) -> int:
        """Return a byte for each mask; of movement pruning, the scores and their moments too."""
        weights = sum(layer.weight.numel() for layer in encoder_linear_layers(student, SPARSITY).values())
        return weights * (1 + 4 * 3 if self.by == "movement" else 1)

    def begin(self, trainer: Any, setup: TrainingSetup) -> Pruner:
        return Pruner(trainer, setup.student, self, trainer.teacher_student.carried(PRUNING_SCORES))

    @property
    def sentence(self) -> str:
        """Return the scheme in a sentence for people."""
        what = f"{100 * self.target:g} % of the weights"
        what += f" ({self.pattern}: all but {self.kept} of {self.among} neighbours)" if self.pattern else ""
        how, paper = _METHODS[self.by]
        return (
            f"In each linear layer of the student’s blocks {what} became zero between {100 * self.start:g} and "
            f"{100 * self.end:g} % of training, {how} ({self.by} pruning, arXiv:{paper}). Plain inference multiplies "
            "the zeros too: it is no faster, and the file no smaller before it is compressed."
        )


_METHODS = {
    "magnitude": ("those of the smallest magnitude", "1710.01878"),
    "movement": ("those that training moved towards zero most", "2005.07683"),
}


def _wrong(key: str, expected: str, got: str) -> UserError:
    return UserError(f"{SPARSITY}.{key}".rstrip("."), expected, got, fix="write student.sparsity={share: 0.5}, say")


def pruning_scores(student: PreTrainedModel) -> nn.ParameterList:
    """Return a score of 0 for each weight of the linear layers of a student's blocks, for movement pruning."""
    layers = encoder_linear_layers(student, SPARSITY).values()
    return nn.ParameterList([nn.Parameter(torch.zeros_like(layer.weight)) for layer in layers])


def mask_of(values: Tensor, share: float, pattern: tuple[int, int] | None = None) -> Tensor:
    """Return which weights of a matrix are kept: all but the lowest share, of equal ones the last.

    Args:
        values: (out, in), the higher the more a weight counts.
        share: fraction to drop, rounded to a number of weights.
        pattern: (N, M): never drop the N highest of M neighbours along the input dimension, of equal ones the first.

    Returns:
        (out, in), boolean.
    """
    if pattern is not None:
        values = values.masked_fill(_highest_of_neighbours(values, *pattern), math.inf)
    number, flat = round(share * values.numel()), values.flatten()
    if number == 0:
        return torch.ones_like(values, dtype=torch.bool)
    border = flat.kthvalue(number).values
    dropped, equal = flat < border, flat == border
    dropped |= equal & (equal.cumsum(0) <= number - dropped.sum())
    return ~dropped.view_as(values)


def _highest_of_neighbours(values: Tensor, kept: int, among: int) -> Tensor:
    groups = values.reshape(-1, among)
    order = groups.argsort(dim=-1, descending=True, stable=True)[:, :kept]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order, True).view_as(values)


class Pruner(LinearChange):
    """Keeps the masks of a student's linear layers, and updates them before the steps at which that is due.

    All processes have the same weights and scores, and so the same masks; they are kept in checkpoints.

    Args:
        trainer: for its state, when checkpoints are read.
        student: on its device.
        sparsity: the settings.
        scores: those of `pruning_scores`, for movement pruning.

    Attributes:
        masks: name of a layer → (out, in), which weights it computes with.

    Raises:
        UserError: if a layer's input width is no multiple of a pattern's M.
    """

    def __init__(
        self, trainer: Any, student: PreTrainedModel, sparsity: Sparsity, scores: nn.ParameterList | None = None
    ):
        self.trainer, self.sparsity = trainer, sparsity
        self.layers = encoder_linear_layers(student, SPARSITY)
        validate_widths(self.layers, sparsity)
        self._scores = dict(zip(self.layers, scores, strict=True)) if scores is not None else None
        self.masks = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in self.layers.items()}
        self._is_loaded = False

    @property
    def is_complete(self) -> bool:
        """Whether the last step was taken with all zeros."""
        state = self.trainer.state
        return state.global_step > self.sparsity.bounds(state.max_steps)[1]

    def weight(self, name: str, weight: Tensor, is_training: bool) -> Tensor:
        """Return the weight with zeros where the mask has none."""
        if self._scores is None:
            return weight * self.masks[name]
        return _Masked.apply(weight, self._scores[name], self.masks[name])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start with all weights, or go on with the masks of the checkpoint that was loaded."""
        if not self._is_loaded:
            for mask in self.masks.values():
                mask.fill_(True)
        self._is_loaded = False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.sparsity.is_due(state.global_step, state.max_steps):
            self.update(self.sparsity.share_at(state.global_step, state.max_steps))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._is_loaded = False  # that of the best checkpoint

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Drop a share of the weights of each layer."""
        pattern = (self.sparsity.kept, self.sparsity.among) if self.sparsity.pattern else None
        for name, layer in self.layers.items():
            values = layer.weight.abs() if self._scores is None else self._scores[name]
            self.masks[name].copy_(mask_of(values, share, pattern))

    def share(self) -> float:
        """Return the share of weights that the masks drop."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1 - float(torch.stack([mask.sum() for mask in self.masks.values()]).sum()) / total

    def logs(self, accelerator: Any, step: int, progress: float) -> dict[str, float]:
        return {"pruned_share": self.share()}

    def save(self, folder: Path) -> None:
        """Write the masks beside the weights of a checkpoint."""
        save_file(self.masks, folder / MASKS)

    def load(self, folder: Path) -> None:
        """Read the masks of a checkpoint.

        Raises:
            UserError: if it has none, or those of other layers.
        """
        if not (folder / MASKS).is_file():
            raise _no_masks(folder, "none")
        with safe_open(folder / MASKS, "pt") as file:
            if set(file.keys()) != set(self.masks):
                raise _no_masks(folder, "those of other layers")
            for name, mask in self.masks.items():
                mask.copy_(file.get_tensor(name))
        self._is_loaded = True


class _Masked(torch.autograd.Function):
    """Returns weight ⊙ mask; the mask's straight-through gradient goes to the scores."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, mask = ctx.saved_tensors
        return gradients[0] * mask, gradients[0] * weight, None


def _no_masks(folder: Path, got: str) -> UserError:
    return UserError(
        SPARSITY,
        f"the masks of the student's weights in {folder}",
        got,
        why="training would go on with other zeros than it had",
        fix=f"start anew (run.overwrite=true), or leave {SPARSITY} as it was in that training",
    )


def validate_widths(layers: dict[str, nn.Linear], sparsity: Sparsity) -> None:
    """Raise UserError for a layer whose input width is no multiple of a pattern's M."""
    if sparsity.pattern is None:
        return
    for name, layer in layers.items():
        if layer.in_features % sparsity.among:
            raise UserError(
                f"{SPARSITY}.pattern",
                f"input widths that are multiples of {sparsity.among}",
                f"{layer.in_features} in {name}",
                why="a group of neighbours would not be whole",
                fix="take another pattern, or share in its place",
            )


def validate_sparsity(request: SignalRequest, is_sharded: bool, is_widened: bool) -> None:
    """Raise an error for what does not go together with sparsity.

    Args:
        request: signals of the student.
        is_sharded: whether FSDP or DeepSpeed divide the student.
        is_widened: whether network augmentation trains a wider net around it.

    Raises:
        UserError: for sharding, network augmentation, and terms on weights.
    """
    found = {
        "FSDP or DeepSpeed": (is_sharded, "a mask is of a whole matrix", "use DDP"),
        "student.augment": (is_widened, "that is for students that have too few weights", "leave one of the two out"),
        "objective.weights_mse": (bool(request.weights), "it would fill the zeros again", "leave one of the two out"),
    }
    refuse_beside(SPARSITY, found)
