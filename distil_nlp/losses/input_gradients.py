"""A loss on the gradients of a model's own loss at its input, which show the tokens that it relies on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from distil_nlp.losses.hard_labels import HARD_LOSSES
from distil_nlp.losses.numerics import at_least_fp32, normalize
from distil_nlp.objective import LossTerm, NeededLabels, Role, check_same_shape
from distil_nlp.signals.types import GradientFunction, SignalRequest, Signals
from distil_nlp.tasks import TaskKind


def input_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_rows ‖s_student / ‖s_student‖ − s_teacher / ‖s_teacher‖‖², from 0 (at equality) to 2 per row.

    s is a row's saliency: for each token the norm of the gradient of the model's loss with respect to the token's
    embedding. Norms, so that widths are free; normalised, because a model that is confident about a row has small
    gradients everywhere. A row whose gradients are all 0 counts as ‖0 − …‖².

    Args:
        student: gradients, (rows, seq, width), 0 at padding.
        teacher: gradients, (rows, seq, width), 0 at padding; widths may differ. No gradient flows to them.

    Raises:
        ValueError: if the numbers of rows or tokens differ.

    Reference: Zagoruyko, Komodakis 2017, arXiv:1612.03928, section 3.2 (gradient-based attention transfer: the squared
    distance of the gradients themselves), with the normalisation of its section 3.1.
    """
    check_same_shape(student[..., 0], teacher[..., 0], "(rows, seq, …) alike")
    return (_saliency(student) - _saliency(teacher.detach())).square().sum()


def _saliency(gradient: Tensor) -> Tensor:
    """Return the gradient norms of the tokens, (rows, seq), each row at norm 1."""
    norms = torch.linalg.vector_norm(at_least_fp32(gradient), dim=-1)
    largest = norms.detach().amax(-1, keepdim=True)  # so that `normalize` does not take small gradients for 0
    return normalize(norms / largest.masked_fill(largest == 0, 1))


def gradient_at_embeddings(batch: Mapping[str, Any], kind: TaskKind, again: bool) -> GradientFunction:
    """Return a function (logits, embeddings) → gradient of the model's own loss at the embeddings, (batch, seq, width).

    The loss is that on the batch's labels, as `hard_label` has it. The gradient is 0 in rows
    without a label.

    Args:
        batch: holds `rows` and, if there are any, `labels`.
        kind: the kind of task.
        again: True to keep the graph, so that a loss on the gradient can be differentiated.
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
    return HARD_LOSSES[kind.output](chosen, labels)


@contextmanager
def double_backward_attention() -> Iterator[None]:
    """Run attention in plain operations, whose gradient can be differentiated, and always record a graph.

    The gradient of fused kernels cannot be differentiated. The graph is needed in evaluation too, for the gradient
    itself.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield


def detach_signals(signals: Signals) -> Signals:
    """Return the signals with all tensors cut off from the graph."""
    return Signals(**tree_map_only(Tensor, Tensor.detach, vars(signals)))


class InputGradient(LossTerm):
    """`input_gradient`: squared distance between normalised saliencies, per labelled row.

    The saliency of a token is the norm of the gradient of the model's own loss on the labels (that of `hard_label`) at
    its embedding, in the student and in the teacher.

    The gradient is differentiated once more: a step takes two backward passes of the student, one of the teacher, and
    attention in plain operations, with (batch, heads, seq, seq) maps of every layer. Widths and depths need not agree.
    For an ensemble, the loss is that of the mean output, the embeddings are the first member's. It cannot be used with
    `torch.compile`, activation checkpointing, fp16, FSDP, DeepSpeed or a teacher's cache.
    """

    name, paper, is_variant = "input_gradient", "1612.03928", True
    levels, outputs = ("sequence",), ("distribution", "number", "labels")
    uses_unlabelled_rows = accepts_cached_teacher = False
    unit = "squared distance"
    formula = (
        "the squared distance between the norms of the loss's gradients at the tokens' embeddings, normalised per row"
    )

    def counted_rows(self) -> str:
        return "labelled"

    def needed_labels(self, kind: TaskKind) -> NeededLabels | None:
        return "labels"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(logits=True, input_gradient=True)

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        rows = batch["rows"]["labelled"]
        gradients: list[Any] = [student.input_gradient, teacher.input_gradient]
        return input_gradient(gradients[0].index_select(0, rows), gradients[1].index_select(0, rows))
