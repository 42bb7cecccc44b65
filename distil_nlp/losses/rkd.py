"""Relational knowledge distillation: distances and angles between the sequences of a micro-batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.numerics import TINY, at_least_fp32, check_same_rows, matmul_fp32, normalize
from distil_nlp.objective import BatchTerm


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return mean_{i≠j} Huber(d_student(i, j), d_teacher(i, j)), d a Euclidean distance relative to the mean of all.

    The mean is that over all i ≠ j of a micro-batch. 0 where the states agree up to a rotation, a shift and a scale.
    Huber(a, b) is ½ (a − b)² up to |a − b| = 1, and |a − b| − ½ beyond. With two rows the distance is always 1.

    Args:
        student: (rows, width), at least 2 rows.
        teacher: (rows, width) of the same rows; its width may differ. No gradient flows to it.

    Raises:
        ValueError: if the numbers of rows differ.

    Reference: RKD-D, arXiv:1904.05068, section 3.2, which sums the pairs. The authors' code takes the mean over n²,
    the pairs i = j included, with which the usual weight of 25 goes; this mean over n · (n − 1) is larger by
    n / (n − 1): 3 % at 32 rows, 14 % at 8.
    """
    check_same_rows(student, teacher)
    num_pairs = len(student) * (len(student) - 1)
    scaled = []
    for states in (at_least_fp32(student), at_least_fp32(teacher.detach())):
        distances = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist")
        scaled.append(distances / (distances.sum() / num_pairs).clamp_min(TINY))
    return F.smooth_l1_loss(scaled[0], scaled[1], reduction="sum") / num_pairs


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss between the cosines of the angles at j between i and k, over distinct i, j, k.

    0 where the states agree up to a rotation, a shift and a scale. Fewer than three rows have no angle: 0. It holds
    rows² · width and rows³ numbers: 13 MB and 1 MB for 64 rows of width 768 in fp32. Arguments and errors are those of
    `rkd_distance`.

    Reference: RKD-A, arXiv:1904.05068, section 3.2, which sums the triplets. The authors' code takes the mean over
    n³, with which the usual weight of 50 goes; this one is larger by n² / ((n − 1) · (n − 2)): 10 % at 32 rows, 52 % at
    8.
    """
    check_same_rows(student, teacher)
    rows, cosines = len(student), []
    for states in (at_least_fp32(student), at_least_fp32(teacher.detach())):
        sides = normalize(states[None] - states[:, None])  # [j, i] is the direction from j to i
        cosines.append(matmul_fp32(sides, sides.transpose(1, 2)))
    # a triplet with i = j has a cosine of 0 on both sides, one with i = k of 1: they add nothing
    return F.smooth_l1_loss(cosines[0], cosines[1], reduction="sum") / max(rows * (rows - 1) * (rows - 2), 1)


class RKDDistance(BatchTerm):
    """`rkd_distance`: Huber loss between the distances of [CLS] states in a micro-batch, relative to their mean."""

    name, paper = "rkd_distance", "1904.05068"
    unit = "Huber"
    formula = "the Huber loss between the distances of [CLS] states within a micro-batch, relative to their mean"
    loss = staticmethod(rkd_distance)


class RKDAngle(BatchTerm):
    """`rkd_angle`: Huber loss between the cosines of all angles between three [CLS] states of a micro-batch."""

    name, paper = "rkd_angle", "1904.05068"
    unit = "Huber"
    formula = "the Huber loss between the cosines of the angles of [CLS] states within a micro-batch"
    loss = staticmethod(rkd_angle)
