"""A loss on attention scores: the input of the softmax over keys."""

from __future__ import annotations

import math

from torch import Tensor

from distil_nlp.losses.attention_maps import HeadsTerm, check_same_maps, sum_chosen
from distil_nlp.objective import Role
from distil_nlp.signals.types import SignalRequest


def attention_scores_mse(student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """Return Σ_rows mean_heads mean_keys (student − teacher)² between attention scores. 0 at equality.

    A row is one query token; the mean runs over the keys that are visible to it in both models, so that neither padding
    nor the values that a mask adds count. Unlike distributions, scores also match what a softmax is blind to: a
    constant added to all scores of a query.

    Args:
        student: scores as they go into the softmax, (batch, heads, queries, keys), −inf where a key is masked.
        teacher: scores of the same shape; no gradient flows to them.
        chosen: (batch, queries), 1 for rows that count and 0 for the others, such as padded queries.

    Raises:
        ValueError: if the shapes differ.

    Reference: TinyBERT, arXiv:1909.10351, equation 7, whose mean is over all keys, padding included.
    """
    check_same_maps(student, teacher)
    masked = (student == -math.inf) | (teacher == -math.inf)
    error = (student - teacher.detach()).masked_fill(masked, 0).square()
    return sum_chosen(error / (~masked).sum(-1, keepdim=True).clamp_min(1), chosen)


class AttentionScoresMSE(HeadsTerm):
    """`attention_scores_mse`: squared error of scores before the softmax, averaged over keys and heads (TinyBERT)."""

    name, map_loss, of_scores = "attention_scores_mse", staticmethod(attention_scores_mse), True
    unit = "squared difference"
    formula = "squared error of the attention scores before the softmax, mean over heads and visible keys"
    paper = "1909.10351"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(attention=self.blocks(role), scores=self.blocks(role))
