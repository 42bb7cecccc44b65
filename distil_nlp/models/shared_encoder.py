"""One encoder for several tasks: plain models with a head each, whose embeddings and blocks are the same tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError

_OF_HEADS = ("pooler",)
"""Parts of a family's encoder that belong to the head: not all heads of a family read them."""


class TaskModels(nn.Module):
    """Models of several tasks as one module, whose forward is that of the task that was chosen last.

    Each shared tensor is saved once. As wrappers of models do, it has the model whose forward runs as `module`.

    Args:
        models: those of the tasks, which share an encoder; see `share_encoder`.

    Attributes:
        models: likewise.
        task: number of the task that a forward is for.
    """

    def __init__(self, models: Sequence[PreTrainedModel]):
        super().__init__()
        self.models, self.task = nn.ModuleList(models), 0
        self.register_state_dict_post_hook(_without_copies)
        self.register_load_state_dict_post_hook(_forget_copies)

    @property
    def module(self) -> nn.Module:
        """The model of the chosen task."""
        return self.models[self.task]

    def forward(self, **inputs: Any) -> Any:
        """Run the model of the chosen task."""
        return self.module(**inputs)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Let each model compute the activations of its blocks again in the backward."""
        for model in self.models:
            model.gradient_checkpointing_enable(**options)  # type: ignore[operator]  # ModuleList has no element type


def share_encoder(models: Sequence[PreTrainedModel], names: Sequence[str]) -> None:
    """Replace the embeddings and blocks of models by those of the first one; heads, and poolers, stay their own.

    Args:
        models: of one family and shape.
        names: of their tasks, for errors.

    Raises:
        UserError: if the encoders are not alike, or have weights outside of their parts.
    """
    first = models[0].base_model
    for model, name in zip(models[1:], names[1:], strict=True):
        base = model.base_model
        _check_alike(first, base, names[0], name)
        for part, module in first.named_children():
            if part not in _OF_HEADS and hasattr(base, part):
                setattr(base, part, module)
        model.tie_weights()  # a head on words reads the table of the shared embeddings
        own = {key for key, value in _encoder_weights(base).items() if value is not _encoder_weights(first)[key]}
        if own:
            raise UserError(
                "data",
                f"an encoder whose weights are all in its parts, for several tasks with {type(base).__name__}",
                ", ".join(sorted(own)[:3]),
                why="they would not be shared",
                fix="take another encoder, or distil each task by itself",
            )


def _check_alike(first: nn.Module, base: nn.Module, first_name: str, name: str) -> None:
    """Raise UserError unless two encoders have tensors of the same names and shapes."""
    one, other = ({key: tuple(value.shape) for key, value in _encoder_weights(m).items()} for m in (first, base))
    differing = [key for key in one | other if one.get(key) != other.get(key)]
    if differing or type(first) is not type(base):
        key = differing[0] if differing else ""
        shapes = f"{type(first).__name__} and {type(base).__name__}"
        if key:
            shapes += f", where {key} has the shape {one.get(key, 'none')} and {other.get(key, 'none')}"
        raise UserError(
            "data",
            f"one shape of encoder for the students of {first_name} and {name}",
            shapes,
            why="all tasks have one encoder, and their students are made of teachers of unlike shapes",
            fix="take teachers of one family and size, or name the student's checkpoint with student.name",
        )


def _encoder_weights(base: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of an encoder by name, without those that belong to the head."""
    named = base.named_parameters(remove_duplicate=False)
    return {name: value for name, value in named if name.partition(".")[0] not in _OF_HEADS}


def _without_copies(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Drop all names of a tensor but the first from a state dict."""
    known: set[int] = set()
    for name in [name for name in state if name.startswith(prefix)]:
        address = state[name].data_ptr()
        if address in known and state[name].numel():
            del state[name]
        known.add(address)


def _forget_copies(module: nn.Module, found: Any) -> None:
    """Forget missing names of tensors that have been loaded by another name."""
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    missing = set(found.missing_keys)
    loaded = {id(value) for name, value in named.items() if name not in missing}
    found.missing_keys[:] = [name for name in found.missing_keys if name not in named or id(named[name]) not in loaded]
