"""Similarities between the sequences of a micro-batch: as a matrix, and as probabilities."""

import torch
from torch import Tensor

from distil_nlp.losses.numerics import check_same_rows, matmul_fp32, normalize
from distil_nlp.objective import BatchTerm

_EPSILON = 1e-7


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """‖G_student − G_teacher‖² / rows², where G is the Gram matrix of the states, each row at length 1; Frobenius norm.
    0 where the states agree up to rotation and scale.

    Args:
        student, teacher: (rows, width); widths are free. No gradient flows to the teacher.

    Raises:
        ValueError: if the rows are not equally many.

    Reference: Similarity-Preserving KD, arXiv:1907.09682, section 3.
    """
    check_same_rows(student, teacher)
    mine, other = (normalize(matmul_fp32(one, one.T)) for one in (student, teacher.detach()))
    return (mine - other).square().sum() / len(student) ** 2


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_i KL(p(·|i) ‖ q(·|i)) in nats, where p(j|i) = K(i, j) / Σ_{k≠i} K(i, k) of the teacher, q of the student,
    and K = ½ (1 + cos): how likely a neighbour j ≠ i is of i. 0 where all cosines agree.

    K of opposite states is 1e-7 instead of 0, so that the KL stays finite.

    Args:
        student, teacher: (rows, width), at least 2 rows; widths are free. No gradient flows to the teacher.

    Raises:
        ValueError: if the rows are not equally many.

    Reference: Probabilistic Knowledge Transfer, arXiv:1803.10837, section 3, which sums the rows.
    """
    check_same_rows(student, teacher)
    ours, theirs = (_neighbours(one) for one in (student, teacher.detach()))
    return (theirs.exp() * (theirs - ours)).sum() / len(student)


def _neighbours(states: Tensor) -> Tensor:
    """log p(j|i), (rows, rows); the diagonal is so low that its probability is 0."""
    states = normalize(states)
    likely = (1 + matmul_fp32(states, states.T)).clamp_min(0) / 2 + _EPSILON
    itself = torch.eye(len(states), dtype=torch.bool, device=states.device)
    return likely.log().masked_fill(itself, torch.finfo(likely.dtype).min / 2).log_softmax(-1)


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
