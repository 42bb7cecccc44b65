"""Several teachers that speak as one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError


class Ensemble(nn.Module):
    """Teachers whose logits are averaged; hidden states and attention are those of the first.

    The mean of logits is, after the softmax, the geometric mean of their distributions (Hinton, Vinyals, Dean 2015,
    arXiv:1503.02531, section 5, has it beside the arithmetic one), at every temperature.

    Args:
        teachers: with heads of one kind, for the same words and labels; in eval mode from here on.

    Raises:
        UserError: if their outputs differ in number.
    """

    def __init__(self, teachers: Sequence[PreTrainedModel]):
        super().__init__()
        sizes = [_outputs(one) for one in teachers]
        if len(set(sizes)) > 1:
            raise UserError(
                "teacher.ensemble",
                "models with equally many outputs",
                ", ".join(map(str, sizes)),
                why="their logits have no mean",
                fix="take models of one vocabulary and one task",
            )
        self.members = nn.ModuleList(teachers)
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Any:
        """The first one's output, with the mean logits."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        known = [inspect.signature(one.forward).parameters for one in self.members]
        outputs = [
            one(**{name: value for name, value in inputs.items() if name in names})
            for one, names in zip(self.members, known, strict=True)
        ]
        outputs[0].logits = torch.stack([output.logits for output in outputs]).mean(0)
        return outputs[0]

    @property
    def config(self) -> PretrainedConfig:
        return self.members[0].config

    @property
    def base_model(self) -> nn.Module:
        return self.members[0].base_model

    @property
    def device(self) -> torch.device:
        return self.members[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self.members[0].dtype

    def get_output_embeddings(self) -> None:
        """None that would speak for all."""

    def get_input_embeddings(self) -> None:
        """None that all share."""

    def set_attn_implementation(self, name: str) -> None:
        for one in self.members:
            one.set_attn_implementation(name)

    def _can_set_attn_implementation(self) -> bool:
        return all(one._can_set_attn_implementation() for one in self.members)


def _outputs(model: PreTrainedModel) -> int:
    """Words or labels."""
    return model.config.vocab_size if model.get_output_embeddings() is not None else model.config.num_labels
