"""Forwards that take a batch and return logits, of a student and of its graphs alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil_nlp.export.session import GraphSession
from distil_nlp.models.outputs import output_logits
from distil_nlp.models.segments import fit_segments
from distil_nlp.signals.types import forward_arguments
from distil_nlp.tasks import TaskKind

LogitsForward = Callable[[Mapping[str, Tensor]], Tensor]
"""Inputs by name, others among them → logits, as `output_logits` has them."""


def student_forward(student: PreTrainedModel) -> LogitsForward:
    """Return the forward of a student, on the CPU."""
    known = forward_arguments(student)

    def forward(inputs: Mapping[str, Tensor]) -> Tensor:
        own = {name: value for name, value in inputs.items() if name in known}
        with torch.inference_mode():
            return output_logits(student(**fit_segments(student.config, own))).float()

    return forward


def graph_forward(student: PreTrainedModel, kind: TaskKind, path: Path) -> LogitsForward:
    """Return the forward of a graph of a student; its states become a vector as the student's own do."""
    session, config = GraphSession(path), student.config

    def forward(inputs: Mapping[str, Tensor]) -> Tensor:
        found = session.run(fit_segments(config, dict(inputs)))
        if kind.output == "spans":
            return torch.stack([found["start_logits"], found["end_logits"]], -1)
        if kind.has_vectors:
            encoder: Any = student
            with torch.inference_mode():
                return encoder.vectors(found["last_hidden_state"], inputs.get("attention_mask")).float()
        return found["logits"]

    return forward
