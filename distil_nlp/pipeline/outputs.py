"""Losses of a model's own outputs and distances between two models', for each kind of task, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.tasks import TaskKind


def drawn_loss(logits: Tensor, kind: TaskKind, batch: Mapping[str, Any]) -> Tensor:
    """Return the sum over rows of −log p(y) of outputs y that are drawn from a model's own, up to a constant.

    Of numbers, scores and vectors f, p is normal around f with variance 1.

    Args:
        logits: as signals have them: (rows, classes), (rows, 1), (rows, length), or (rows, seq, 2) of spans.
        kind: of the task.
        batch: for the positions of spans.
    """
    logits = _distributions(logits, kind, batch)
    if kind.output in ("spans", "distribution"):
        drawn = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)
        return F.cross_entropy(logits, drawn, reduction="sum")
    if kind.output == "labels":
        drawn = torch.bernoulli(logits.detach().sigmoid())
        return F.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")
    return (logits * torch.randn_like(logits)).sum()


def output_distance(student: Tensor, teacher: Tensor, kind: TaskKind, batch: Mapping[str, Any]) -> Tensor:
    """Return the sum over rows of the KL from the teacher's outputs to the student's, or of squared differences.

    Args:
        student, teacher: logits as signals have them.
        kind: of the task.
        batch: for the positions of spans.
    """
    student, teacher = (_distributions(one, kind, batch) for one in (student, teacher))
    if kind.output in ("spans", "distribution"):
        return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="sum", log_target=True)
    if kind.output == "labels":
        p = teacher.sigmoid()
        return F.binary_cross_entropy_with_logits(student, p, reduction="sum") - F.binary_cross_entropy_with_logits(
            teacher, p, reduction="sum"
        )
    return F.mse_loss(student, teacher, reduction="sum")


def _distributions(logits: Tensor, kind: TaskKind, batch: Mapping[str, Any]) -> Tensor:
    """Return logits in float32; of spans (2 · rows, seq), of starts and ends, with padding as good as ruled out."""
    logits = logits.float()
    if kind.output != "spans":
        return logits
    hidden = ~batch["attention_mask"].bool()[..., None]
    low = torch.finfo(torch.float32).min / 2  # infinity less infinity is no number
    return logits.masked_fill(hidden, low).transpose(1, 2).flatten(0, 1)
