"""Matching attention maps: distributions before dropout, computed in fp32 from queries and keys."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_log_probabilities(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """log softmax(scaling · query keyᵀ) without dropout, (batch, heads, seq, seq), in fp32.

    Keys that may not be seen get a finite −1.7e38, so that their probability is exactly 0 and
    0 · log 0 never becomes NaN.

    Args:
        query, key: (batch, heads, seq, head width).
        scaling: the model's own factor, usually 1 / √(head width).
        mask: which keys may be seen. Boolean (True = visible), or float to be added to the scores;
            broadcast to (batch, heads, seq, seq).
    """
    scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * scaling
    if mask is None:
        return scores.log_softmax(-1)
    visible = mask
    if mask.dtype != torch.bool:
        visible = mask > torch.finfo(mask.dtype).min / 2
        scores = scores + mask.masked_fill(~visible, 0).float()
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min / 2).log_softmax(-1)


def average_heads(log_probabilities: Tensor) -> Tensor:
    """The log of the mean distribution over heads, (batch, 1, seq, seq): for unequal numbers of heads."""
    heads = log_probabilities.shape[1]
    return torch.logsumexp(log_probabilities, dim=1, keepdim=True) - math.log(heads)


def attention_kl(student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
    """Σ_rows mean_heads KL(teacher ‖ student) between attention distributions, in nats.

    A row is one query token; its distribution runs over the keys it may see. 0 at equality. Keys that the
    teacher gives probability 0 (padding among them) add nothing.

    Args:
        student, teacher: log-probabilities, (batch, heads, seq, seq), with the same number of heads.
        rows: flat positions of query tokens in (batch × seq); padded queries are simply not among them.

    Raises:
        ValueError: if the shapes differ (`average_heads` on both sides where the heads do).

    Reference: MiniLM, arXiv:2002.10957, equation 5, for any mapped layer.
    """
    student, teacher = _select(student, teacher, rows)
    per_key = F.kl_div(student, teacher, reduction="none", log_target=True)
    return per_key.sum(-1).mean(1).sum()


def attention_mse(student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
    """Σ_rows mean_heads Σ_keys (student − teacher)² between probabilities.

    Keys are summed, not averaged: a mean over keys would shrink with padding and sequence length.
    Arguments and errors as in `attention_kl`, which gives small probabilities more weight.

    Reference: TinyBERT, arXiv:1909.10351, equation 7, on probabilities instead of scores.
    """
    student, teacher = _select(student, teacher, rows)
    return (student.exp() - teacher.exp()).square().sum(-1).mean(1).sum()


def _select(student: Tensor, teacher: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen queries of both maps, (rows, heads, keys); the teacher's without gradient."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected (batch, heads, seq, seq) alike / got student {tuple(student.shape)}, "
            f"teacher {tuple(teacher.shape)} / average the heads on both sides if their numbers differ"
        )
    batch_query = (rows // student.shape[2], slice(None), rows % student.shape[2])
    return student[batch_query], teacher.detach()[batch_query]
