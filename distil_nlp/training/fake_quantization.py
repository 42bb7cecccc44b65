"""Quantisation-aware training: embeddings and linear layers compute as their int8 copies will, in floating point.

They are the linear layers of the student's blocks, and all tables but one that is the output layer too (masked language
models); pooler and head stay as they are. Weights and inputs are rounded to the 256 values that int8 has for them, and
the gradient passes as if they were not (the straight-through estimator of Bengio, Léonard, Courville 2013,
arXiv:1308.3432; Jacob et al. 2018, arXiv:1712.05877).

The scales are those of onnxruntime's dynamic quantisation, by which `export` makes its int8 copy:

- weights: an int8 scale for each output, max |w| ÷ 127 (÷ 64 with `reduce_range`), zero at 0;
- embeddings: uint8, one scale (max − min) ÷ 255 and zero point for a table;
- inputs: uint8, scale (max − min) ÷ 255 and a zero point, taken anew in each forward over a range that includes 0.

onnxruntime takes the range of an input over the whole batch. Here it is that of each text, without its padding: as in a
batch of one, and the same however rows are divided among micro-batches and processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.training.effective_weights import LinearChange, refuse_beside
from distil_nlp.training.extension import Extension, TrainingSetup

QUANTIZATION = "student.quantization"


@dataclass(frozen=True)
class QuantizationAware(Extension):
    """Settings of quantisation-aware training.

    Attributes:
        start: fraction of training from which on the student computes as in int8; in evaluation it always does.
        reduce_range: weights of 7 bits, as in `export.reduce_range`.

    Raises:
        UserError: unless 0 ≤ start < 1.
    """

    start: float = 0.5
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise UserError(
                f"{QUANTIZATION}.start",
                "a fraction from 0 and below 1",
                f"{self.start:g}",
                why="no step would be taken as in int8",
                fix="take 0.5, say",
            )

    def is_due(self, step: int, max_steps: int) -> bool:
        """Return whether the student computes as in int8 in a step, from 0; in the last it always does."""
        return step >= round(self.start * (max_steps - 1))

    def validate(self, setup: TrainingSetup) -> None:
        validate_quantization(setup.is_sharded, setup.is_widened)

    def begin(self, trainer: Any, setup: TrainingSetup) -> FakeQuantizer:
        return FakeQuantizer(setup.student, self)

    @property
    def sentence(self) -> str:
        """Return the scheme in a sentence for people."""
        when = "In training" if self.start == 0 else f"From {100 * self.start:g} % of training on"
        return (
            f"{when} the linear layers of the student’s blocks computed with int8 weights"
            f"{' of 7 bits' if self.reduce_range else ''} and uint8 inputs, and its embeddings were uint8, all rounded "
            "in floating point with straight-through gradients (quantisation-aware training, arXiv:1712.05877). Its "
            "weights are the rounded ones in fp32; small and fast is its int8 export alone."
        )


def fake_int8_weight(weight: Tensor, reduce_range: bool = False) -> Tensor:
    """Return a weight, (out, in), rounded to int8 values of one scale for each output; its gradient passes through.

    Args:
        weight: the matrix.
        reduce_range: 129 values in place of 255.
    """
    highest = 64 if reduce_range else 127
    scale = _not_zero(weight.detach().abs().amax(1).float() / highest)
    zero = torch.zeros_like(scale)  # of integers, torch would read the least and the greatest, and wait for a GPU
    rounded = torch.fake_quantize_per_channel_affine(weight.float(), scale, zero, 0, -highest, highest)
    return rounded.to(weight.dtype)


def fake_uint8_states(states: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return states rounded to uint8 values; the gradient passes through where they are in the range.

    Args:
        states: (batch, seq, width), of which each row has a range of its own; those of other shapes have one range.
        mask: (batch, seq), true where a token counts for the range; all do if None.
    """
    seen, rows = states.detach().float(), 1
    if states.dim() == 3:
        rows = len(states)
        seen = seen if mask is None else seen * mask[..., None]
    flat = seen.reshape(rows, -1)
    low, high = flat.amin(1).clamp(max=0), flat.amax(1).clamp(min=0)
    scale = _not_zero((high - low) / 255)
    zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
    shaped = states.float().reshape(rows, -1)
    return torch.fake_quantize_per_channel_affine(shaped, scale, zero, 0, 0, 255).view_as(states).to(states.dtype)


def fake_uint8_rows(rows: Tensor, table: Tensor) -> Tensor:
    """Return rows of a table of embeddings, rounded to the uint8 values of the whole table; the gradient passes.

    Args:
        rows: (…, width), read from the table.
        table: (words, width), whose range counts.
    """
    low, high = (end.float() for end in torch.aminmax(table.detach()))
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _not_zero((high - low) / 255)
    zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(rows.float(), scale, zero, 0, 255).to(rows.dtype)


def _tables(student: PreTrainedModel) -> list[nn.Embedding]:
    """Return the tables of embeddings that are not the output layer too."""
    output = student.get_output_embeddings() if hasattr(student, "get_output_embeddings") else None
    tied = getattr(output, "weight", None)
    return [one for one in student.modules() if type(one) is nn.Embedding and one.weight is not tied]


def _not_zero(scale: Tensor) -> Tensor:
    """Return scales, 1 where all values are 0."""
    return torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)


class FakeQuantizer(LinearChange):
    """Rounds a student's embeddings and what its linear layers compute with, from `start` on and in evaluation.

    Args:
        student: its embeddings are rounded, and its inputs looked at for the padding.
        quantization: the settings.
    """

    def __init__(self, student: PreTrainedModel, quantization: QuantizationAware):
        self.quantization = quantization
        self._is_on = quantization.start == 0
        self._mask: Tensor | None = None
        self._tables = _tables(student)
        self._hooks = [student.register_forward_pre_hook(self._look, with_kwargs=True)]
        self._hooks += [table.register_forward_hook(self._round_rows) for table in self._tables]

    def _look(self, student: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the padding of a forward, until the next one: a block may be computed again for its gradient."""
        mask = kwargs.get("attention_mask")
        self._mask = mask.bool() if mask is not None and mask.dim() == 2 else None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._is_on = self.quantization.is_due(state.global_step, state.max_steps)

    def weight(self, name: str, weight: Tensor, is_training: bool) -> Tensor:
        """Return the weight as int8 has it."""
        if is_training and not self._is_on:
            return weight
        return fake_int8_weight(weight, self.quantization.reduce_range)

    def states(self, states: Tensor, is_training: bool) -> Tensor:
        """Return a layer's input as uint8 has it."""
        if is_training and not self._is_on:
            return states
        mask = self._mask
        return fake_uint8_states(states, mask if mask is not None and states.shape[:2] == mask.shape else None)

    def _round_rows(self, table: nn.Embedding, args: tuple[Any, ...], rows: Tensor) -> Tensor:
        return rows if table.training and not self._is_on else fake_uint8_rows(rows, table.weight)

    @torch.no_grad()
    def bake(self) -> None:
        """Give the tables the rounded embeddings."""
        for table in self._tables:
            table.weight.copy_(fake_uint8_rows(table.weight, table.weight))

    def remove(self) -> None:
        """Take the hooks off the student."""
        for hook in self._hooks:
            hook.remove()


def validate_quantization(is_sharded: bool, is_widened: bool) -> None:
    """Raise an error for what does not go together with quantisation-aware training.

    Args:
        is_sharded: whether FSDP or DeepSpeed divide the student.
        is_widened: whether network augmentation trains a wider net around it.

    Raises:
        UserError: for sharding and network augmentation.
    """
    found = {
        "FSDP or DeepSpeed": (is_sharded, "a scale is of a whole row of a matrix", "use DDP"),
        "student.augment": (is_widened, "its further units would not be rounded", "leave one of the two out"),
    }
    refuse_beside(QUANTIZATION, found)
