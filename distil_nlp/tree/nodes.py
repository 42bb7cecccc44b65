"""The content of `tree.json`: what each node asks, in words, and what each leaf says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distil_nlp.tree.inputs import TreeInputs
from distil_nlp.tree.loading import TRAIN
from distil_nlp.tree.soft_tree import SoftDecisionTree, TreePaths, depth_of_nodes
from distil_nlp.tree.training import walk

_MOST_WORDS = 12


@dataclass(frozen=True)
class NodeWord:
    """A word that speaks for a branch.

    Attributes:
        word: as `TfidfVectorizer` has it.
        strength: how much it moves the activation β (x·w + b) towards this branch: β |w| × the standard deviation of
            its TF-IDF over the rows that arrive; for embeddings the covariance of TF-IDF with the branch's probability.
        weight: w of the word, towards the right; None for embeddings.
    """

    word: str
    strength: float
    weight: float | None


@dataclass(frozen=True)
class InnerNode:
    """An inner node.

    Attributes:
        node: number, from 0, level by level.
        depth: 0 for the root.
        bias: b.
        share: fraction of the training rows whose likeliest leaf is below it.
        right: α, the mean probability of the right branch over the training rows, weighted with arrival.
        left_words: words that speak for the left branch, the strongest first.
        right_words: likewise, for the right one.
    """

    node: int
    depth: int
    bias: float
    share: float
    right: float
    left_words: tuple[NodeWord, ...]
    right_words: tuple[NodeWord, ...]


@dataclass(frozen=True)
class TreeLeaf:
    """A leaf.

    Attributes:
        leaf: number, from 0, from left to right.
        share: fraction of the training rows whose likeliest leaf it is.
        distribution: Q, the probability of each class.
    """

    leaf: int
    share: float
    distribution: tuple[float, ...]


@dataclass(frozen=True)
class DescribedTree:
    """A trained tree in words."""

    depth: int
    nodes: tuple[InnerNode, ...]
    leaves: tuple[TreeLeaf, ...]

    def leaves_below(self, node: int) -> range:
        """Return the leaves below an inner node, or below a leaf, which are numbered after the inner nodes."""
        level = (node + 1).bit_length() - 1
        width = 2 ** (self.depth - level)
        first = (node + 1 - 2**level) * width
        return range(first, first + width)

    def share_of(self, node: int) -> float:
        """Return the fraction of the training rows whose likeliest leaf is below a node or is it."""
        return sum(self.leaves[leaf].share for leaf in self.leaves_below(node))


def describe_tree(tree: SoftDecisionTree, inputs: TreeInputs) -> DescribedTree:
    """Return nodes and leaves with their words and their shares of the training rows."""
    paths = walk(tree, inputs.features[TRAIN])
    counts = np.bincount(tree.best_leaves(paths).numpy(), minlength=2**tree.depth)
    shares = (counts / counts.sum()).tolist()
    distributions = tree.leaf_log_probabilities().detach().exp().tolist()
    leaves = tuple(TreeLeaf(i, shares[i], tuple(one)) for i, one in enumerate(distributions))
    described = DescribedTree(tree.depth, (), leaves)
    arrived = paths.log_nodes.double().exp().numpy()
    rights = (arrived * paths.log_right.double().exp().numpy()).sum(0) / arrived.sum(0)
    strengths = _strengths(tree, inputs, paths, rights)
    nodes = []
    for node, depth in enumerate(depth_of_nodes(tree.depth).tolist()):
        right, left = (_words(tree, inputs, node, sign * strengths[node]) for sign in (1, -1))
        bias, share = float(tree.biases[node].detach()), described.share_of(node)
        nodes.append(InnerNode(node, depth, bias, share, float(rights[node]), left, right))
    return DescribedTree(tree.depth, tuple(nodes), leaves)


def _strengths(tree: SoftDecisionTree, inputs: TreeInputs, paths: TreePaths, rights: np.ndarray) -> np.ndarray:
    """Return how much each word speaks for the right branch of each node, (nodes, words)."""
    words = inputs.words[TRAIN]
    arrived = paths.log_nodes.double().exp().numpy()
    arrived = arrived / arrived.sum(0)
    if inputs.has_words:
        variances = words.power(2).T @ arrived - (words.T @ arrived) ** 2
        return tree.beta * tree.weights.detach().numpy() * np.sqrt(np.maximum(variances, 0)).T
    deviations = arrived * (paths.log_right.double().exp().numpy() - rights)
    return (words.T @ deviations).T


def _words(tree: SoftDecisionTree, inputs: TreeInputs, node: int, strengths: np.ndarray) -> tuple[NodeWord, ...]:
    """Return the words with the largest strengths above 0."""
    order = np.argsort(-strengths, kind="stable")[:_MOST_WORDS]
    weights = tree.weights[node].detach() if inputs.has_words else None
    return tuple(
        NodeWord(inputs.names[i], float(strengths[i]), None if weights is None else float(weights[i]))
        for i in order.tolist()
        if strengths[i] > 0
    )


def tree_document(described: DescribedTree, labels: list[str], beta: float, kind: str) -> dict[str, Any]:
    """Return the content of `tree.json`."""
    return {
        "depth": described.depth,
        "beta": beta,
        "input": kind,
        "labels": labels,
        "nodes": [
            {
                "node": node.node,
                "depth": node.depth,
                "bias": node.bias,
                "share": node.share,
                "right": node.right,
                "words": {
                    "left": [vars(word) for word in node.left_words],
                    "right": [vars(word) for word in node.right_words],
                },
            }
            for node in described.nodes
        ],
        "leaves": [
            {
                "leaf": leaf.leaf,
                "share": leaf.share,
                "distribution": dict(zip(labels, leaf.distribution, strict=True)),
            }
            for leaf in described.leaves
        ],
    }
