"""`SoftDecisionTree`: a full binary tree whose inner nodes send a row to both sides, each with a probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TreePaths:
    """Log-probabilities of the ways of a batch of rows through a tree.

    Attributes:
        log_right: log p_i of each inner node i, (rows, nodes); p_i is the probability of its right branch.
        log_left: log (1 − p_i), (rows, nodes).
        log_nodes: log P^i, the probability that a row arrives at inner node i, (rows, nodes).
        log_leaves: log P^ℓ, the probability that it arrives at leaf ℓ, (rows, leaves).
    """

    log_right: Tensor
    log_left: Tensor
    log_nodes: Tensor
    log_leaves: Tensor


class SoftDecisionTree(nn.Module):
    """The soft decision tree of Frosst & Hinton 2017 (arXiv:1711.09784), section 2.

    Inner node i takes the right branch with p_i(x) = σ(β (x·w_i + b_i)). Leaf ℓ has a distribution
    Q^ℓ = softmax(φ^ℓ), which does not depend on x. Nodes are numbered level by level: 0 is the root, 2i + 1 and 2i + 2
    are the left and right children of i. All products of probabilities are sums of log-sigmoids, so that a node that is
    sure of a row gives neither −infinity nor NaN.

    Args:
        num_features: length of x.
        num_classes: classes of a leaf's distribution.
        depth: decisions on the way to a leaf; there are 2^depth leaves.
        beta: inverse temperature β of the decisions; larger ones are harder.
        seed: of the weights at the start.
    """

    def __init__(self, num_features: int, num_classes: int, depth: int, beta: float = 1.0, seed: int = 0):
        super().__init__()
        self.depth, self.beta = depth, beta
        draws = torch.Generator().manual_seed(seed)
        weights = torch.rand(2**depth - 1, num_features, generator=draws) * 2 - 1
        self.columns = nn.Parameter((weights / num_features**0.5).T.contiguous())
        self.biases = nn.Parameter(torch.zeros(2**depth - 1))
        self.leaf_logits = nn.Parameter(0.1 * torch.randn(2**depth, num_classes, generator=draws))

    @property
    def weights(self) -> Tensor:
        """A view of the weights w, (nodes, features)."""
        return self.columns.T

    def forward(self, inputs: Tensor) -> TreePaths:
        """Return the ways of rows, (rows, features), which may be a sparse tensor."""
        activations = self.beta * (inputs @ self.columns + self.biases)
        log_right, log_left = F.logsigmoid(activations), F.logsigmoid(-activations)
        arrived, levels = activations.new_zeros(len(activations), 1), []
        for depth in range(self.depth):
            levels.append(arrived)
            nodes = slice(2**depth - 1, 2 ** (depth + 1) - 1)
            both = (arrived + log_left[:, nodes], arrived + log_right[:, nodes])
            arrived = torch.stack(both, dim=-1).flatten(1)
        return TreePaths(log_right, log_left, torch.cat(levels, dim=1), arrived)

    def leaf_log_probabilities(self) -> Tensor:
        """Return log Q^ℓ, (leaves, classes)."""
        return F.log_softmax(self.leaf_logits, dim=-1)

    def best_leaves(self, paths: TreePaths) -> Tensor:
        """Return the leaf with the greatest path probability of each row, (rows,)."""
        return paths.log_leaves.argmax(-1)

    def best_leaf_distributions(self, paths: TreePaths) -> Tensor:
        """Return log Q of the leaf with the greatest path probability, (rows, classes): the paper's prediction."""
        return self.leaf_log_probabilities()[self.best_leaves(paths)]

    def mixtures(self, paths: TreePaths) -> Tensor:
        """Return log Σ_ℓ P^ℓ(x) Q^ℓ, (rows, classes): all leaves, each by its path probability."""
        return torch.logsumexp(paths.log_leaves.unsqueeze(-1) + self.leaf_log_probabilities(), dim=1)


def depth_of_nodes(depth: int) -> Tensor:
    """Return the depth of each inner node of a tree, (nodes,); the root's is 0."""
    return torch.cat([torch.full((2**level,), level) for level in range(depth)])
