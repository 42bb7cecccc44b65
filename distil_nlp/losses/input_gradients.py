"""Gradients of a model's own loss at its input: which tokens it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from distil_nlp.losses.numerics import at_least_fp32, normalize
from distil_nlp.objective import LossTerm, Role, check_same_shape
from distil_nlp.signals.types import GradientFunction, SignalRequest, Signals
from distil_nlp.tasks import TaskKind


def input_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_rows ‖s_student / ‖s_student‖ − s_teacher / ‖s_teacher‖‖², from 0 (at equality) to 2 a row.

    s is a row's saliency: for each token the length of the gradient of the model's loss with respect to the token's
    embedding. Lengths, so that widths are free, and normalised, because a model that is sure of a row has small
    gradients everywhere. A row whose gradients are all 0 counts as ‖0 − …‖².

    Args:
        student, teacher: gradients, (rows, seq, width) each, 0 at padding; no gradient flows to the teacher.

    Raises:
        ValueError: if rows or tokens differ.

    Reference: Zagoruyko, Komodakis 2017, arXiv:1612.03928, section 3.2 (gradient-based attention transfer: the squared
    distance of the gradients themselves), with the normalisation of its section 3.1.
    """
    check_same_shape(student[..., 0], teacher[..., 0], "(rows, seq, …) alike")
    return (_saliency(student) - _saliency(teacher.detach())).square().sum()


def _saliency(gradient: Tensor) -> Tensor:
    """(rows, seq), of length 1 in each row."""
    lengths = torch.linalg.vector_norm(at_least_fp32(gradient), dim=-1)
    largest = lengths.detach().amax(-1, keepdim=True)  # so that small gradients are not taken for none
    return normalize(lengths / largest.masked_fill(largest == 0, 1))


def gradient_at_embeddings(batch: Mapping[str, Any], kind: TaskKind, again: bool) -> GradientFunction:
    """Of the loss on a batch's labels with respect to the embeddings, (batch, seq, width); 0 in rows without a label.

    Args:
        again: keep the graph, so that a loss on the gradient can be differentiated.
    """

    def differentiate(logits: Tensor, embeddings: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return torch.autograd.grad(_own_loss(logits, batch, kind), embeddings, create_graph=again)[0]

    return differentiate


def _own_loss(logits: Tensor, batch: Mapping[str, Any], kind: TaskKind) -> Tensor:
    rows = batch["rows"]["labelled"]
    chosen = at_least_fp32(logits.index_select(0, rows))
    if "labels" not in batch:
        return chosen.sum() * 0.0
    labels = batch["labels"].index_select(0, rows)
    if kind.output == "number":
        return (chosen.flatten() - labels).square().sum()
    return F.cross_entropy(chosen, labels, reduction="sum")


@contextmanager
def double_backward_attention() -> Iterator[None]:
    """Attention in plain operations, whose gradient has a gradient (fused kernels' has none), and a graph also where
    none would be kept, as in evaluation."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield


def detach_signals(seen: Signals) -> Signals:
    return Signals(**tree_map_only(Tensor, Tensor.detach, vars(seen)))


class InputGradient(LossTerm):
    """`input_gradient`: squared distance of normalised saliencies per labelled row: how much each token's
    embedding moves the model's own loss (cross-entropy, or squared error of a regression), in the student as in the
    teacher.

    The gradient is differentiated once more: a step takes the student's backward twice, one backward of the teacher,
    and attention in plain operations, with (batch, heads, seq, seq) maps of every layer. Widths and depths need not
    agree. Of an ensemble, the loss is that of the mean output, the embeddings are the first member's. Not with
    `torch.compile`, activation checkpointing, fp16, FSDP, DeepSpeed or a teacher's cache.
    """

    name, paper = "input_gradient", "1612.03928"
    levels = ("sequence",)
    uses_unlabelled_rows = accepts_cached_teacher = False
    unit = "squared distance"
    formula = (
        "the squared distance of the lengths of the loss's gradients at the tokens' embeddings, normalised in a row"
    )

    def counted_rows(self) -> str:
        return "labelled"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(logits=True, input_gradient=True)

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        ours, theirs = (one.input_gradient.index_select(0, batch["rows"]["labelled"]) for one in (student, teacher))
        return input_gradient(ours, theirs)
