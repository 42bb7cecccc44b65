"""Losses on hard labels, the data's own targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.kernels.vocabulary import FusedTerm
from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import LabelTerm, check_same_shape
from distil_nlp.signals.types import Signals
from distil_nlp.tasks.kind import Output, TaskKind


def hard_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_rows −log softmax(logits)[label], in nats, the loss of masked language models and classifiers.

    Args:
        logits: (rows, classes).
        labels: (rows,), integers in [0, classes).
    """
    return F.cross_entropy(at_least_fp32(logits), labels, reduction="sum")


def hard_mse(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_rows (output − label)², the loss of a regression.

    Args:
        outputs: (rows, 1).
        labels: (rows,).

    Raises:
        ValueError: if the numbers of outputs and labels differ.
    """
    outputs = at_least_fp32(outputs).squeeze(-1)
    check_same_shape(outputs, labels, "an output for each label", ("outputs", "labels"))
    return F.mse_loss(outputs, labels.to(outputs.dtype), reduction="sum")


def hard_binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_rows Σ_classes −log p(label), in nats, with p = σ(logit) for a label that a row has and 1 − σ if not.

    The sum over classes, as in `soft_target_bernoulli_kl`, which has the same gradient where the teacher is certain of
    the labels at T = 1: −log likelihood of a row's whole set of labels. transformers' own loss of multi-label
    classification is the mean over classes, which is smaller by their number.

    Args:
        logits: (rows, classes).
        labels: (rows, classes), 0 or 1.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(logits, labels, "a label for each output", ("logits", "labels"))
    logits = at_least_fp32(logits)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")


def hard_relevance(scores: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_rows of the binary cross-entropy of σ(score) with the document's relevance, in nats.

    Each document is judged by itself, as by `BinaryCrossEntropyLoss` of sentence-transformers.

    Args:
        scores: (rows, 1).
        labels: (rows, 2): relevance between 0 and 1, and the number of the query, which is not read.
    """
    return hard_binary_cross_entropy(scores.squeeze(-1), labels[:, 0])


HARD_LOSSES: Mapping[Output, Callable[[Tensor, Tensor], Tensor]] = {
    "distribution": hard_cross_entropy,
    "number": hard_mse,
    "labels": hard_binary_cross_entropy,
    "score": hard_relevance,
    "spans": hard_cross_entropy,
}
"""Meaning of the outputs → (outputs, labels) → Σ over rows of a model's own loss."""


class HardLabel(LabelTerm):
    """`hard_label`: cross-entropy with the data's own labels; squared error for regression.

    For multi-label classification it is the sum over classes of the binary cross-entropy; for ranking that of each
    document's relevance, by itself; for question answering the mean of those of start and end, over allowed positions.

    Rows are masked tokens (language modelling), first sub-words of words (token classification) or labelled rows; those
    labelled −100 or NaN are excluded.
    """

    name, needs_teacher = "hard_label", False
    outputs = ("distribution", "number", "labels", "score", "spans")
    unit = "nats"
    formula = "cross-entropy with the data’s own labels"
    formula_of_regression = "squared error to the data’s own values"
    formulas = {
        "labels": "binary cross-entropy with the data’s own labels, summed over labels",
        "score": "binary cross-entropy with the document’s relevance",
        "spans": "cross-entropy with start and end of the data’s own answer, over allowed positions, mean of the two",
    }

    def fused(self, progress: float) -> FusedTerm | None:
        return FusedTerm("labels") if self.kind.output == "distribution" else None

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        return HARD_LOSSES[self.kind.output](logits, labels)


class MaskedAccuracy(LabelTerm):
    """`accuracy`, for evaluation: the number of masked tokens whose most likely word is the right one.

    Args:
        kind: kind of task; the term is in no objective, which would tell it.
    """

    name, needs_teacher = "accuracy", False

    def __init__(self, kind: TaskKind):
        super().__init__(weight=0.0)
        self.kind = kind

    def counted_rows(self) -> str:
        return "masked"

    def loss(
        self, labels: Tensor, logits: Tensor, teacher: Signals, batch: Mapping[str, Any], progress: float
    ) -> Tensor:
        return (logits.argmax(-1) == labels).sum()
