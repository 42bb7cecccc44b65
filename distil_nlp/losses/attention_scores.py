"""Attention scores: what the softmax over keys is taken of."""

from __future__ import annotations

import math

from torch import Tensor

from distil_nlp.losses.attention_maps import HeadsTerm, check_same_maps, sum_chosen
from distil_nlp.objective import Role
from distil_nlp.signals.types import SignalRequest


def attention_scores_mse(student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """Σ_rows mean_heads mean_keys (student − teacher)² between attention scores. 0 at equality.

    A row is one query token; the mean runs over the keys that it may see in both models, so that neither padding nor
    what a mask adds to it counts. Unlike distributions, scores also fix what a softmax forgets: a constant added to all
    scores of a query.

    Args:
        student, teacher: scores as they go into the softmax, (batch, heads, queries, keys), −inf where a key may not be
            seen, with the same number of heads.
        chosen: (batch, queries), 1 for rows that count and 0 for the others, such as padded queries.

    Raises:
        ValueError: if the shapes differ.

    Reference: TinyBERT, arXiv:1909.10351, equation 7, whose mean is over all keys, padding included.
    """
    check_same_maps(student, teacher)
    unseen = (student == -math.inf) | (teacher == -math.inf)
    error = (student - teacher.detach()).masked_fill(unseen, 0).square()
    return sum_chosen(error / (~unseen).sum(-1, keepdim=True).clamp_min(1), chosen)


class AttentionScoresMSE(HeadsTerm):
    """`attention_scores_mse`: squared error of scores before the softmax, averaged over keys and heads (TinyBERT)."""

    name, map_loss, of_scores = "attention_scores_mse", staticmethod(attention_scores_mse), True
    unit = "squared difference"
    formula = "squared error of the attention scores before the softmax, mean over heads and visible keys"
    paper = "1909.10351"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(attention=self.blocks(role), scores=self.blocks(role))
