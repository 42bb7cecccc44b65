"""Losses on the similarities between the sequences of a micro-batch: as a matrix, and as probabilities."""

import torch
from torch import Tensor

from distil_nlp.losses.numerics import check_same_rows, matmul_fp32, normalize
from distil_nlp.objective import BatchTerm

_EPSILON = 1e-7
"""The kernel of opposite states, so that their log-probability stays finite."""


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖G_student − G_teacher‖² / rows², where G is the Gram matrix of the states with rows normalised.

    The norm is the Frobenius norm. 0 where the states agree up to rotation and scale.

    Args:
        student: (rows, width).
        teacher: (rows, width) of the same rows; its width may differ. No gradient flows to it.

    Raises:
        ValueError: if the numbers of rows differ.

    Reference: Similarity-Preserving KD, arXiv:1907.09682, section 3.
    """
    check_same_rows(student, teacher)
    student_gram, teacher_gram = (normalize(matmul_fp32(states, states.T)) for states in (student, teacher.detach()))
    return (student_gram - teacher_gram).square().sum() / len(student) ** 2


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Return mean_i KL(p(·|i) ‖ q(·|i)) in nats, p the teacher's probabilities of neighbours, q the student's.

    p(j|i) = K(i, j) / Σ_{k≠i} K(i, k) with K = ½ (1 + cos) is the probability that j ≠ i is a neighbour of i. 0 where
    all cosines agree. K of opposite states is 1e-7 instead of 0, so that the KL stays finite.

    Args:
        student: (rows, width), at least 2 rows.
        teacher: (rows, width) of the same rows; its width may differ. No gradient flows to it.

    Raises:
        ValueError: if the numbers of rows differ.

    Reference: Probabilistic Knowledge Transfer, arXiv:1803.10837, section 3, which sums the rows. The authors' code
    also adds up the pairs (i, i): a difference of 2 % at 8 rows.
    """
    check_same_rows(student, teacher)
    student_log_probs, teacher_log_probs = (_neighbour_log_probs(states) for states in (student, teacher.detach()))
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum() / len(student)


def _neighbour_log_probs(states: Tensor) -> Tensor:
    """Return log p(j|i), (rows, rows); the diagonal is so low that its probability is 0."""
    states = normalize(states)
    kernel = (1 + matmul_fp32(states, states.T)).clamp_min(0) / 2 + _EPSILON
    diagonal = torch.eye(len(states), dtype=torch.bool, device=states.device)
    return kernel.log().masked_fill(diagonal, torch.finfo(kernel.dtype).min / 2).log_softmax(-1)


class SimilarityPreserving(BatchTerm):
    """`similarity_preserving`: squared error of the normalised Gram matrix of a micro-batch's [CLS] states (SP)."""

    name, paper = "similarity_preserving", "1907.09682"
    unit = "squared difference"
    formula = "the squared error of the row-normalised Gram matrix of a micro-batch's [CLS] states"
    loss = staticmethod(similarity_preserving)


class PKT(BatchTerm):
    """`pkt`: KL between the probabilities that a micro-batch's [CLS] states are neighbours, from their cosines."""

    name, paper = "pkt", "1803.10837"
    unit = "nats"
    formula = "KL(teacher ‖ student) of the probabilities of being neighbours, from cosines of [CLS] states"
    loss = staticmethod(pkt)
