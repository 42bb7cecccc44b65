"""Losses on the scores of a query's documents: their differences, and the softmax over them."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import NeededLabels, OutputTerm, Temperature, Weight, as_schedule, check_same_shape
from distil_nlp.signals.types import Signals
from distil_nlp.tasks import TaskKind


def margin_mse(student: Tensor, teacher: Tensor, relevance: Tensor, queries: Tensor) -> Tensor:
    """Return Σ_pairs ((s_i − s_j) − (t_i − t_j))², over pairs of a query's documents of which i is the more relevant.

    Each pair of documents of different relevance counts once, those without a label not at all. 0 where the scores of
    student and teacher differ by the same number for all documents of a query.

    Args:
        student: scores, (rows,).
        teacher: scores, (rows,); no gradient flows to them.
        relevance: (rows,), NaN for a document without a label.
        queries: (rows,), the number of each row's query.

    Raises:
        ValueError: if the shapes differ.

    Reference: Hofstätter et al. (2020), arXiv:2010.02666, section 3.2.
    """
    check_same_shape(student, teacher)
    surplus = at_least_fp32(student) - at_least_fp32(teacher.detach())
    is_pair = _same(queries) & (relevance[:, None] > relevance[None, :])
    return ((surplus[:, None] - surplus[None, :]).square() * is_pair).sum()


def listwise_kl(student: Tensor, teacher: Tensor, queries: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · Σ_queries KL(p ‖ q) in nats; p and q are softmaxes over the scores ÷ T of a query's documents.

    0 where the scores of student and teacher differ by the same number for all documents of a query, as those of a
    query with one document.

    Args:
        student: scores, (rows,).
        teacher: scores, (rows,), which give p; no gradient flows to them.
        queries: (rows,), the number of each row's query.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: after RocketQAv2, Ren et al. (2021), arXiv:2110.07367, section 3.2, whose two models both learn.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0 / got {temperature}")
    check_same_shape(student, teacher)
    same = _same(queries)
    own, target = (_log_softmax(at_least_fp32(one) / temperature, same) for one in (student, teacher.detach()))
    return F.kl_div(own, target, reduction="sum", log_target=True) * temperature**2


def _same(queries: Tensor) -> Tensor:
    """Return which rows are of one query, (rows, rows)."""
    return queries[:, None] == queries[None, :]


def _log_softmax(scores: Tensor, same: Tensor) -> Tensor:
    """Return the log probability of each document among those of its query, (rows,)."""
    return scores - scores.expand(len(scores), -1).masked_fill(~same, float("-inf")).logsumexp(1)


class _QueryTerm(OutputTerm):
    """A term between the scores that student and teacher give to a query's documents, which share a micro-batch."""

    outputs = ("score",)

    def signal_rows(self) -> str:
        return "sequences"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        own, target = (self.logits(signals, batch).squeeze(-1) for signals in (student, teacher))
        relevance, queries = batch["labels"].index_select(0, batch["rows"]["sequences"]).unbind(1)
        return self.loss(own, target, relevance, queries, progress)

    def loss(self, student: Tensor, teacher: Tensor, relevance: Tensor, queries: Tensor, progress: float) -> Tensor:
        """Return Σ over pairs or queries, from scores (rows,) of both models."""
        raise NotImplementedError


class MarginMSE(_QueryTerm):
    """`margin_mse`: squared error of the differences of scores, over pairs of documents of different relevance.

    The mean is over all such pairs of a step, so that a query with more of them weighs more.
    """

    name, paper = "margin_mse", "2010.02666"
    unit = "squared difference"
    formula = "squared error of the differences of scores between a query’s more and less relevant documents"
    uses_unlabelled_rows = False
    without_labels = "take listwise_kl, which needs none: objective.margin_mse=null objective.listwise_kl={}"

    def counted_rows(self) -> str:
        return "pairs"

    def needed_labels(self, kind: TaskKind) -> NeededLabels | None:
        return "pairs"

    def loss(self, student: Tensor, teacher: Tensor, relevance: Tensor, queries: Tensor, progress: float) -> Tensor:
        return margin_mse(student, teacher, relevance, queries)


class ListwiseKL(_QueryTerm):
    """`listwise_kl`: T² · KL(teacher ‖ student) of the softmax over a query's documents, in nats per query.

    It needs no labels. The mean is over the queries with two documents or more.

    Args:
        temperature: T by which scores are divided, a number or a `Schedule`.
    """

    name, paper, is_variant = "listwise_kl", "2110.07367", True
    unit = "nats × T²"
    formula = "KL(teacher ‖ student) of the softmax over the scores of a query’s documents, times T²"

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 1.0):
        super().__init__(weight)
        self.temperature = as_schedule(temperature)

    def counted_rows(self) -> str:
        return "queries"

    def loss(self, student: Tensor, teacher: Tensor, relevance: Tensor, queries: Tensor, progress: float) -> Tensor:
        return listwise_kl(student, teacher, queries, self.temperature(progress))
