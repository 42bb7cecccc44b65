"""The loss of a soft decision tree: cross-entropy of its leaves, and a penalty on nodes that use one branch alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distil_nlp.tree.soft_tree import TreePaths, depth_of_nodes


def path_cross_entropy(log_leaves: Tensor, leaf_log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over rows of Σ_ℓ P^ℓ(x) (−Σ_k T_k log Q^ℓ_k), in nats.

    Frosst & Hinton 2017 print the loss as L(x) = −log(Σ_ℓ P^ℓ(x) Σ_k T_k log Q^ℓ_k), which is the logarithm of a
    negative number. The usual reading, and what is computed here, is the formula without the outer logarithm: each
    leaf's cross-entropy, weighted with its path probability.

    Args:
        log_leaves: log P^ℓ, (rows, leaves).
        leaf_log_probabilities: log Q^ℓ, (leaves, classes).
        targets: T, (rows, classes); each row sums to 1.
    """
    cross_entropies = -targets @ leaf_log_probabilities.T
    return (log_leaves.exp() * cross_entropies).sum(-1).mean()


class BalancePenalty(nn.Module):
    """Penalty on inner nodes that send all rows to one side (Frosst & Hinton 2017).

    α_i = Σ_x P^i(x) p_i(x) ÷ Σ_x P^i(x), and the penalty is −Σ_i λ 2^−d_i (½ log α_i + ½ log(1 − α_i)), where d_i is
    the depth of node i. Fewer rows of a batch arrive at deeper nodes: both sums are exponential running means over a
    window of about 2^d batches, so that the root's is the batch alone. Earlier batches are constants in the gradient.
    The sums are kept as logarithms: a node that is sure of all rows has a large penalty, not an infinite one.

    Args:
        depth: of the tree.
        strength: λ.
    """

    log_sums: Tensor

    def __init__(self, depth: int, strength: float):
        super().__init__()
        depths = depth_of_nodes(depth)
        self.decay = strength * 0.5**depths
        self.log_new = -depths * math.log(2)
        self.log_kept = torch.log1p(-(0.5**depths))
        self.register_buffer("log_sums", torch.full((3, len(depths)), -math.inf))

    def forward(self, paths: TreePaths) -> Tensor:
        """Return the penalty of a batch, and take it into the running means."""
        arrived = paths.log_nodes
        batch = torch.stack([arrived + paths.log_right, arrived + paths.log_left, arrived]).logsumexp(1)
        batch = batch - math.log(len(arrived))
        sums = torch.logaddexp(self.log_kept + self.log_sums, self.log_new + batch)
        self.log_sums = sums.detach()
        log_right, log_left = sums[0] - sums[2], sums[1] - sums[2]
        return -(self.decay * 0.5 * (log_right + log_left)).sum()
