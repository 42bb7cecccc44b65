"""`Ensemble`: several teachers as a single model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.data.encodings import OWN, batch_of
from distil_nlp.errors import UserError
from distil_nlp.models.outputs import output_logits
from distil_nlp.models.segments import fit_segments
from distil_nlp.teachers.mixing import Mixing


class Ensemble(nn.Module):
    """A model with the mixed logits of several teachers; hidden states and attention are those of the first.

    By itself it knows neither labels nor a student, so that its forward, and its score, has `correctness` weights as
    `confidence` ones, and `student_uncertainty` as `fixed` ones; probabilities are mixed unsoftened. In training,
    `EnsembleTeacher` asks each member for itself, and mixes as the `Mixing` says. Answers in the data's columns, of
    which the forward knows nothing, can be one more teacher in training: the last weight is theirs.

    Args:
        teachers: models with the same kind of head, vocabulary and labels, of any depth and width; they are put into
            eval mode.
        mixing: how their outputs are mixed; by default the mean of the logits, all with the same weight.
        encodings: the tokens that each of them reads, where they are not all the student's; see
            `distil_nlp.data.encodings`.

    Raises:
        UserError: if they have different numbers of outputs, or not each of them has a weight.
    """

    def __init__(
        self, teachers: Sequence[PreTrainedModel], mixing: Mixing | None = None, encodings: Sequence[str] | None = None
    ):
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
        mixing = mixing or Mixing((1.0,) * len(teachers))
        if len(mixing.models) != len(teachers):
            raise UserError("teacher.ensemble", f"{len(teachers)} weights, one a teacher", str(len(mixing.models)))
        self.encodings = tuple(encodings or [OWN] * len(teachers))
        self.members = cast(Sequence[PreTrainedModel], nn.ModuleList(teachers))
        self.mixing = replace(mixing, sizes=tuple(_num_parameters(model) for model in teachers))
        self.eval()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **further: Any,
    ) -> Any:
        """Return the output of the first model, with the mixed logits.

        A teacher that reads other tokens is given those in the columns of its encoding, or else the student's.
        """
        own = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        mixing, inputs = self.mixing.of(self.mixing.models), {**own, **further}
        active = mixing.active
        outputs = {number: self._run(number, inputs) for number in sorted({0, *active})}
        outputs[0].logits = mixing.of(active).mixed([output_logits(outputs[number]) for number in active])
        return outputs[0]

    def _run(self, number: int, inputs: Mapping[str, Any]) -> Any:
        member, inputs = self.members[number], batch_of(inputs, self._encoding_in(number, inputs))
        names = inspect.signature(member.forward).parameters
        return member(**fit_segments(member.config, {name: value for name, value in inputs.items() if name in names}))

    def _encoding_in(self, number: int, inputs: Mapping[str, Any]) -> str:
        """Return the encoding of a teacher if a batch has it, else the student's."""
        encoding = self.encodings[number]
        return encoding if f"{encoding}input_ids" in inputs else OWN

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


def _num_parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
