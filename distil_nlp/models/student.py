"""Construction of a student from its teacher: the choice of layers and classes, and the copying of weights.

Initialisation is the largest single factor in DistilBERT's ablation (−3.69 GLUE points with random weights).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import (
    PreTrainedModel,
)

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import stack_prefix
from distil_nlp.models.config_fields import set_for_building
from distil_nlp.models.distilbert import _distilbert_class, _distilbert_config, _distilbert_sources
from distil_nlp.models.loading import commit_of, load_with_missing_keys
from distil_nlp.tasks import Head

LayerChoice = Literal["every_other", "first", "last", "random"] | Sequence[int]


@dataclass
class StudentReport:
    """The origin of the student's parameters.

    Attributes:
        layers: the teacher's block for each of the student's, or None if no block was copied.
        copied, new: names of the parameters that were copied, and of those that were newly initialised.
        source: the checkpoint the student started from, if it was not made of the teacher.
        revision: its commit, if it is on the Hub.
    """

    layers: list[int] | None
    copied: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    source: str | None = None
    revision: str | None = None

    def to_dict(self) -> dict[str, Any]:
        start = {"checkpoint": self.source, "revision": self.revision}
        return {"teacher_layers": self.layers, "copied": len(self.copied), "new": self.new, **start}

    def __str__(self) -> str:
        source = f"from {self.source or 'no teacher layer'}"
        if self.layers is not None:
            source = f"from teacher layers {self.layers}"
        new = ", ".join(self.new[:4]) + (" …" if len(self.new) > 4 else "")
        return f"student {source}: {len(self.copied)} tensors copied, {len(self.new)} new{f' ({new})' if new else ''}"


def choose_layers(choice: LayerChoice, teacher_layers: int, num_layers: int | None) -> list[int] | None:
    """Return the teacher block (0-based) for each student block; None for random weights.

    `every_other` takes the upper one of each group: [1, 3, 5] of 6, ⌊(i + 1) · T / S⌋ − 1 in general. Half the
    teacher's depth is the default of `num_layers`. A list is taken as it is.

    Raises:
        UserError: if the student is deeper than the teacher, or a number is out of range.
    """
    listed = not isinstance(choice, str)
    depth = num_layers or (len(choice) if listed else max(teacher_layers // 2, 1))
    if listed and len(choice) != depth:
        raise UserError(
            None,
            f"as many student.layers as student.num_layers={depth}",
            str(list(choice)),
            why="the depth is ambiguous",
            fix="leave student.num_layers out",
        )
    if depth > teacher_layers:
        raise UserError(
            None,
            f"at most the teacher's {teacher_layers} layers",
            f"a student of {depth}",
            why="it would not be smaller",
            fix="lower student.num_layers",
        )
    if listed:
        wrong = [layer for layer in choice if not 0 <= layer < teacher_layers]
        if wrong:
            raise UserError(
                "student.layers",
                f"numbers from 0 to {teacher_layers - 1}",
                f"{wrong} in {list(choice)}",
                why="the teacher has no such layer",
                fix="blocks count from 0",
            )
        return list(choice)
    return {
        "every_other": [(i + 1) * teacher_layers // depth - 1 for i in range(depth)],
        "first": list(range(depth)),
        "last": list(range(teacher_layers - depth, teacher_layers)),
        "random": None,
    }[choice]


def build_student(
    teacher: PreTrainedModel,
    layers: list[int] | None,
    *,
    num_layers: int | None = None,
    architecture: Literal["same", "distilbert"] = "same",
    config_changes: dict[str, Any] | None = None,
) -> tuple[PreTrainedModel, StudentReport]:
    """Return a student in float32 and train mode, and the report of its weights.

    Args:
        teacher: with the head that the student needs too.
        layers: the teacher block for each student block (`choose_layers`); None leaves all weights random.
        num_layers: the depth, where `layers` does not determine it.
        architecture: the teacher's own classes, or `distilbert` for a BERT (its segment 0 is folded into the
            position table: DistilBERT has no segments, and dropping them would shift every embedding).
        config_changes: fields of the student's configuration, such as a smaller `hidden_size`. Weights that
            then do not fit are newly initialised.

    Raises:
        UserError: if the architecture cannot be had from this teacher, or the configuration is impossible.
    """
    depth = num_layers if layers is None else len(layers)
    student = _empty(teacher, depth, layers, architecture, config_changes or {})
    report = StudentReport(layers)
    if layers is None:
        report.new = [name for name, _ in student.named_parameters()]
        return student, report
    sources = _distilbert_sources if architecture == "distilbert" else _same_sources
    _copy(student, sources(teacher, student, layers), report)
    return student, report


def start_from_checkpoint(name: str, head: Head, revision: str | None = None) -> tuple[PreTrainedModel, StudentReport]:
    """Return a student from an existing checkpoint, for instance one distilled on text, now meant for a task."""
    student, new = load_with_missing_keys(name, head, new_head=True, revision=revision)
    names = [key for key, _ in student.named_parameters()]
    copied, commit = [key for key in names if key not in new], commit_of(name, revision)
    return student.train(), StudentReport(None, copied, new, source=name, revision=commit)


_NOT_TO_CHANGE = ("num_hidden_layers", "n_layers", "vocab_size", "num_labels", "id2label", "label2id", "layer_types")


_IMPOSSIBLE = (ValueError, TypeError, RuntimeError, KeyError, ArithmeticError, AssertionError, StrictDataclassError)


def _empty(
    teacher: PreTrainedModel, depth: int, layers: list[int] | None, architecture: str, changes: dict[str, Any]
) -> PreTrainedModel:
    """Return the student with random weights."""
    config = set_for_building(copy.deepcopy(teacher.config))
    if architecture == "distilbert":
        config, cls = _distilbert_config(teacher), _distilbert_class(teacher)
    else:
        cls = type(teacher)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in layers or range(depth)]
    config.num_hidden_layers = depth
    unknown = [name for name in changes if not hasattr(config, name)]
    if unknown:
        raise UserError(
            "student.config",
            f"fields of {type(config).__name__}",
            ", ".join(unknown),
            why="they would have no effect",
            fix="see the fields in the teacher's config.json",
        )
    fixed = [name for name in changes if name in _NOT_TO_CHANGE]
    if fixed:
        raise UserError(
            "student.config",
            "fields of its shape",
            ", ".join(fixed),
            why="depth, words and labels come from student.num_layers, the teacher and the data",
            fix="leave them out",
        )
    try:
        for name, value in changes.items():
            setattr(config, name, value)
        return cls._from_config(config, dtype=torch.float32).train()
    except _IMPOSSIBLE as error:
        reason = " ".join(str(error).split())
        raise UserError(
            "student.config",
            "a possible configuration",
            f"{changes}: {reason}",
        ) from error


def _copy(student: PreTrainedModel, sources: dict[str, Tensor], report: StudentReport) -> None:
    """Fill every parameter that has a source of its own shape."""
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            source = sources.get(name)
            fits = source is not None and source.shape == parameter.shape
            (report.copied if fits else report.new).append(name)
            if fits:
                parameter.copy_(source)
    buffers = dict(student.named_buffers())
    for name in buffers.keys() & sources.keys():
        if buffers[name].shape == sources[name].shape:
            buffers[name].copy_(sources[name])
    student.tie_weights()


def _same_sources(teacher: PreTrainedModel, student: PreTrainedModel, layers: list[int]) -> dict[str, Tensor]:
    """Return student name → teacher tensor, for one and the same architecture."""
    prefix, state = stack_prefix(teacher), teacher.state_dict()
    sources = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    for i, teacher_layer in enumerate(layers):
        block = f"{prefix}{teacher_layer}."
        sources |= {
            f"{prefix}{i}.{name.removeprefix(block)}": tensor
            for name, tensor in state.items()
            if name.startswith(block)
        }
    return sources
