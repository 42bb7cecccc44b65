"""Width growth: a student wider than its teacher, whose neurons are copies of the teacher's.

Function-preserving initialisation (FPI) of bert2BERT (Chen et al. 2022, arXiv:2110.07143). With g(j) the teacher's
neuron for neuron j of the student, and c(i) the number of copies of i,

    W'[i, j] = W[g(i), g(j)] / c(g(j)),

so that a layer which reads all copies of a neuron reads it once. Heads are copied whole and keep their width, by which
attention scores are scaled. In the paper g is drawn at random beyond the teacher's width; here g(j) = j mod width, so
that a whole multiple copies all neurons equally often: LayerNorm then sees the same mean and variance, and the student
starts as its teacher. In other widths it does not. Feed-forward units pass no norm: more of them change nothing.

Copies of a neuron have equal gradients, and stay equal, but for dropout (bert2BERT's AKI starts them apart instead, and
preserves the function no longer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import feed_forward_width

OF_A_HEAD = ("head_dim", "d_head", "attention_head_size")
"""Fields of the width of a head."""
_FUSED = {re.compile(r"\.(Wqkv|in_proj)\."): 3, re.compile(r"\.Wi\."): 2}
"""Projections whose rows are those of several: queries, keys and values; units and their gates."""
_HEAD_NORM = re.compile(r"(predictions\.transform\.LayerNorm|lm_head\.layer_norm|^head\.norm|vocab_layer_norm)\.")
"""The norm of the states that a vocabulary's table reads."""


def is_wider(teacher: PretrainedConfig, student: PretrainedConfig) -> bool:
    """Return whether a student has a larger width or more feed-forward units than its teacher, and less of neither."""
    sizes = _sizes(teacher, student)
    return any(new > old for old, new in sizes) and all(new >= old for old, new in sizes)


def check_heads(teacher: PretrainedConfig, student: PretrainedConfig) -> None:
    """Raise UserError for a wider student whose heads are not as wide as the teacher's.

    Args:
        teacher: its configuration.
        student: the configuration as it was asked for, which may be of no possible model.
    """
    head, width, heads = head_width(teacher), student.hidden_size, student.num_attention_heads
    is_split = head * teacher.num_attention_heads == teacher.hidden_size
    if not is_wider(teacher, student) or width == teacher.hidden_size or not is_split:
        return
    if width % head:
        raise UserError(
            "student.config.hidden_size",
            f"a multiple of {head}, the width of the teacher's heads",
            str(width),
            why="heads are copied whole",
            fix=f"take {width // head * head} or {(width // head + 1) * head}, or student.layers=random",
        )
    if heads != width // head:
        raise UserError(
            "student.config.num_attention_heads",
            f"{width // head} for a width of {width}, so that heads stay as wide as the teacher's, {head}",
            str(heads),
            why="attention scores, which are divided by the root of that width, would not be the teacher's",
            fix=f"set student.config.num_attention_heads={width // head}, or student.layers=random",
        )


def widened(tensors: dict[str, Tensor], teacher: PreTrainedModel, student: PreTrainedModel) -> dict[str, Tensor]:
    """Return tensors at the student's sizes, if it is wider and its family's weights can be duplicated; else as given.

    Args:
        tensors: student name → tensor at the teacher's sizes.
        teacher: for its configuration.
        student: for its configuration and modules.
    """
    if not is_wider(teacher.config, student.config):
        return tensors
    sizes, grown = _sizes(teacher.config, student.config), {}
    reading = {f"{name}.weight" for name, module in student.named_modules() if isinstance(module, nn.Linear)}
    for name, parameter in student.named_parameters():
        if name in tensors and tensors[name].shape != parameter.shape:
            tensor = _grown(name, tensors[name], parameter.shape, sizes, name in reading)
            if tensor is None:
                return tensors
            grown[name] = tensor
    return tensors | grown | _before_tied_table(student, grown, sizes[0]) if _is_readable(student, grown) else tensors


def starts_apart(teacher: PretrainedConfig, student: PretrainedConfig) -> str | None:
    """Return why a wider student does not start as its teacher; None if nothing of its width is in the way."""
    if student.hidden_size % teacher.hidden_size == 0:
        return None
    return (
        f"its width of {student.hidden_size} is no whole multiple of the teacher's {teacher.hidden_size}, so that "
        "LayerNorm sees some features more often than others"
    )


def has_dropout(config: PretrainedConfig) -> bool:
    """Return whether a model drops anything out in training."""
    return any("drop" in name and isinstance(rate, float) and rate > 0 for name, rate in vars(config).items())


def _sizes(teacher: PretrainedConfig, student: PretrainedConfig) -> list[tuple[int, int]]:
    """Return (teacher's, student's) width and number of feed-forward units, where the family has them."""
    widths = (getattr(teacher, "hidden_size", None), getattr(student, "hidden_size", None))
    units = (feed_forward_width(teacher), feed_forward_width(student))
    return [(old, new) for old, new in (widths, units) if isinstance(old, int) and isinstance(new, int)]


def head_width(config: PretrainedConfig) -> int:
    own = next((value for name in OF_A_HEAD if isinstance(value := getattr(config, name, None), int)), None)
    return own or config.hidden_size // config.num_attention_heads


def _grown(
    name: str, tensor: Tensor, shape: torch.Size, sizes: list[tuple[int, int]], reads_last_axis: bool
) -> Tensor | None:
    """Return a tensor with copies of its neurons along each axis that grows; None if an axis is of something else."""
    if tensor.ndim != len(shape) or tensor.ndim > 2:
        return None
    for axis, (old, new) in enumerate(zip(tensor.shape, shape, strict=True)):
        parts = _parts(name, axis)
        if old == new:
            continue
        if old % parts or new % parts or (old // parts, new // parts) not in sizes:
            return None
        tensor = tensor.index_select(axis, _copied(old // parts, new // parts, parts).to(tensor.device))
        if reads_last_axis and axis == 1:
            tensor = tensor / _counts(old, new).to(tensor)
    return tensor


def _parts(name: str, axis: int) -> int:
    return next((parts for pattern, parts in _FUSED.items() if axis == 0 and pattern.search(name)), 1)


def _copied(old: int, new: int, parts: int = 1) -> Tensor:
    """Return g: the teacher's neuron for each of the student's, part by part."""
    return torch.cat([part * old + torch.arange(new) % old for part in range(parts)])


def _counts(old: int, new: int) -> Tensor:
    """Return c(g(j)): the number of copies that there are of each neuron of the student."""
    neurons = _copied(old, new)
    return torch.bincount(neurons)[neurons]


def _tied_table(student: PreTrainedModel, grown: Mapping[str, Any]) -> bool:
    """Return whether a word embedding that grew is the vocabulary's table too."""
    table = student.get_output_embeddings()
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    return (
        table is not None and table.weight is student.get_input_embeddings().weight and names[id(table.weight)] in grown
    )


def _is_readable(student: PreTrainedModel, grown: Mapping[str, Any]) -> bool:
    """Return whether there is a norm in which to divide what a table reads that is word embedding too."""
    return not _tied_table(student, grown) or any(_HEAD_NORM.search(name) for name in grown)


def _before_tied_table(student: PreTrainedModel, grown: dict[str, Tensor], width: tuple[int, int]) -> dict[str, Tensor]:
    """Return the norm ahead of a tied table, divided by the counts in the table's stead."""
    if not _tied_table(student, grown):
        return {}
    return {name: tensor / _counts(*width).to(tensor) for name, tensor in grown.items() if _HEAD_NORM.search(name)}
