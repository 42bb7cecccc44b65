"""Relational knowledge distillation: distances and angles between the sequences of a micro-batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.numerics import TINY, at_least_fp32, check_same_rows, matmul_fp32, normalize
from distil_nlp.objective import BatchTerm


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_{i≠j} Huber(d_student(i, j), d_teacher(i, j)), where d is a Euclidean distance over the mean of all i ≠ j; 0
    where the states agree up to a rotation, a shift and a scale.

    Huber(a, b) is ½ (a − b)² up to |a − b| = 1, and |a − b| − ½ beyond. Two rows are at distance 1 whatever they are.

    Args:
        student, teacher: (rows, width), at least 2 rows; widths are free. No gradient flows to the teacher.

    Raises:
        ValueError: if the rows are not equally many.

    Reference: RKD-D, arXiv:1904.05068, section 3.2, which sums the pairs.
    """
    check_same_rows(student, teacher)
    pairs = len(student) * (len(student) - 1)
    scaled = []
    for one in (at_least_fp32(student), at_least_fp32(teacher.detach())):
        distance = torch.cdist(one, one, compute_mode="donot_use_mm_for_euclid_dist")
        scaled.append(distance / (distance.sum() / pairs).clamp_min(TINY))
    return F.smooth_l1_loss(*scaled, reduction="sum") / pairs


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over i, j, k, all unlike, of Huber between the cosines of the angle at j between i and k; 0 where the states
    agree up to a rotation, a shift and a scale. Less than three rows have no angle: 0.

    Holds rows² · width and rows³ numbers: of 64 rows of width 768 in fp32, 13 MB and 1 MB.

    Args, errors: as of `rkd_distance`.

    Reference: RKD-A, arXiv:1904.05068, section 3.2, which sums the triplets.
    """
    check_same_rows(student, teacher)
    rows, cosines = len(student), []
    for one in (at_least_fp32(student), at_least_fp32(teacher.detach())):
        sides = normalize(one[None] - one[:, None])  # [j, i] is the direction from j to i
        cosines.append(matmul_fp32(sides, sides.transpose(1, 2)))
    # a triplet with i = j has a cosine of 0 on both sides, one with i = k of 1: they add nothing
    return F.smooth_l1_loss(*cosines, reduction="sum") / max(rows * (rows - 1) * (rows - 2), 1)


class RKDDistance(BatchTerm):
    """`rkd_distance`: Huber loss between the distances of [CLS] states in a micro-batch, over their mean."""

    name, paper = "rkd_distance", "1904.05068"
    unit = "Huber"
    formula = "the Huber loss between the distances of [CLS] states within a micro-batch, over their mean"
    loss = staticmethod(rkd_distance)


class RKDAngle(BatchTerm):
    """`rkd_angle`: Huber loss between the cosines of all angles that three [CLS] states of a micro-batch make."""

    name, paper = "rkd_angle", "1904.05068"
    unit = "Huber"
    formula = "the Huber loss between the cosines of the angles of [CLS] states within a micro-batch"
    loss = staticmethod(rkd_angle)
