"""`Ensemble`: several teachers as a single model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.segments import fit_segments


class Ensemble(nn.Module):
    """A model with the mean logits of several teachers; hidden states and attention are those of the first.

    The mean of logits is, after the softmax, the geometric mean of their distributions (Hinton, Vinyals, Dean 2015,
    arXiv:1503.02531, section 5, has it beside the arithmetic one), at every temperature.

    Args:
        teachers: models with the same kind of head, vocabulary and labels; they are put into eval mode.

    Raises:
        UserError: if they have different numbers of outputs.
    """

    def __init__(self, teachers: Sequence[PreTrainedModel]):
        super().__init__()
        sizes = [_num_outputs(model) for model in teachers]
        if len(set(sizes)) > 1:
            raise UserError(
                "teacher.ensemble",
                "models with equally many outputs",
                ", ".join(map(str, sizes)),
                why="their logits have no mean",
                fix="use models of the same vocabulary and task",
            )
        self.members = cast(Sequence[PreTrainedModel], nn.ModuleList(teachers))
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Any:
        """Return the output of the first model, with the mean logits."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        arguments = [inspect.signature(member.forward).parameters for member in self.members]
        outputs = [
            member(**fit_segments(member.config, {name: value for name, value in inputs.items() if name in names}))
            for member, names in zip(self.members, arguments, strict=True)
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
        """Return None: there is no projection for the mean logits."""

    def get_input_embeddings(self) -> None:
        """Return None: the members have their own embeddings."""

    def set_attn_implementation(self, name: str) -> None:
        for member in self.members:
            member.set_attn_implementation(name)

    def _can_set_attn_implementation(self) -> bool:
        return all(member._can_set_attn_implementation() for member in self.members)


def _num_outputs(model: PreTrainedModel) -> int:
    """Return the number of outputs: words of the vocabulary, or labels."""
    config: Any = model.config
    return config.vocab_size if model.get_output_embeddings() is not None else config.num_labels
