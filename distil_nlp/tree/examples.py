"""Ways of single texts through a tree, decision by decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from distil_nlp.tree.inputs import TreeInputs
from distil_nlp.tree.loading import TreeData
from distil_nlp.tree.soft_tree import SoftDecisionTree, TreePaths
from distil_nlp.tree.training import walk

_MOST_EXAMPLES, _MOST_WORDS = 24, 4


@dataclass(frozen=True)
class RouteStep:
    """A decision on the way to a leaf.

    Attributes:
        node: number of the inner node.
        is_right: whether the way goes right.
        probability: of the branch that is taken.
        words_for: (word, what it adds to the activation towards the branch) of the text, the strongest first.
        words_against: likewise, of words that speak for the other branch.
        bias: what the node's own bias adds towards the branch.
    """

    node: int
    is_right: bool
    probability: float
    words_for: tuple[tuple[str, float], ...]
    words_against: tuple[tuple[str, float], ...]
    bias: float


@dataclass(frozen=True)
class Route:
    """The way of a text to its likeliest leaf.

    Attributes:
        row: number of the row in the data.
        texts: of the row, one or two.
        label: its class.
        leaf: number of the leaf.
        path_probability: of the leaf.
        leaf_distribution: of the classes.
        teacher_distribution: likewise, of the teacher.
        steps: decisions from the root on.
    """

    row: int
    texts: tuple[str, ...]
    label: int
    leaf: int
    path_probability: float
    leaf_distribution: tuple[float, ...]
    teacher_distribution: tuple[float, ...]
    steps: tuple[RouteStep, ...]

    @property
    def predicted(self) -> int:
        """The tree's class."""
        return int(np.argmax(self.leaf_distribution))

    @property
    def teacher_predicted(self) -> int:
        """The teacher's class."""
        return int(np.argmax(self.teacher_distribution))


def example_routes(tree: SoftDecisionTree, data: TreeData, inputs: TreeInputs) -> list[Route]:
    """Return the ways of some evaluation rows: of leaf after leaf, where the tree agrees with the teacher and not."""
    split = data.first_split
    paths = walk(tree, inputs.features[split])
    rows = _chosen(tree, paths, data.teacher[split].predictions.argmax(-1))
    return [_route(tree, data, inputs, paths, row) for row in rows]


def _chosen(tree: SoftDecisionTree, paths: TreePaths, teacher: np.ndarray) -> list[int]:
    """Return numbers of rows, one of each leaf before a second: where the tree agrees with the teacher, and not."""
    leaves = tree.best_leaves(paths).numpy()
    agrees = tree.best_leaf_distributions(paths).argmax(-1).numpy() == teacher
    counts = np.bincount(leaves, minlength=2**tree.depth)
    sides = []
    for side in (agrees, ~agrees):
        seen = np.zeros(len(counts), dtype=int)
        places = []
        for row in np.flatnonzero(side).tolist():
            places.append((seen[leaves[row]], -counts[leaves[row]], row))
            seen[leaves[row]] += 1
        sides.append([row for _, _, row in sorted(places)])
    half = _MOST_EXAMPLES // 2
    agreeing, others = sides[0][: _MOST_EXAMPLES - min(half, len(sides[1]))], sides[1]
    return [*agreeing, *others[: _MOST_EXAMPLES - len(agreeing)]]


def _route(tree: SoftDecisionTree, data: TreeData, inputs: TreeInputs, paths: TreePaths, row: int) -> Route:
    split = data.first_split
    leaf = int(tree.best_leaves(paths)[row])
    return Route(
        row=data.row_numbers[split][row],
        texts=data.texts[split][row],
        label=int(data.teacher[split].labels[row]),
        leaf=leaf,
        path_probability=float(paths.log_leaves[row, leaf].exp()),
        leaf_distribution=tuple(tree.leaf_log_probabilities()[leaf].detach().exp().tolist()),
        teacher_distribution=tuple(softmax(data.teacher[split].predictions[row]).tolist()),
        steps=tuple(_step(tree, inputs, paths, split, row, *turn) for turn in _turns(tree.depth, leaf)),
    )


def _turns(depth: int, leaf: int) -> list[tuple[int, bool]]:
    """Return (inner node, whether the way goes right) from the root to a leaf."""
    turns, node = [], 0
    for level in reversed(range(depth)):
        is_right = bool(leaf >> level & 1)
        turns.append((node, is_right))
        node = 2 * node + 1 + is_right
    return turns


def _step(
    tree: SoftDecisionTree, inputs: TreeInputs, paths: TreePaths, split: str, row: int, node: int, is_right: bool
) -> RouteStep:
    sign = 1 if is_right else -1
    words: list[tuple[str, float]] = []
    if inputs.has_words:
        found = inputs.words[split][row]
        added = sign * tree.beta * tree.weights[node].detach().numpy()[found.indices] * found.data
        order = np.argsort(-np.abs(added), kind="stable")
        words = [(inputs.names[found.indices[i]], float(added[i])) for i in order.tolist()]
    taken = paths.log_right if is_right else paths.log_left
    return RouteStep(
        node=node,
        is_right=is_right,
        probability=float(taken[row, node].exp()),
        words_for=tuple((word, value) for word, value in words if value > 0)[:_MOST_WORDS],
        words_against=tuple((word, -value) for word, value in words if value < 0)[:_MOST_WORDS],
        bias=sign * tree.beta * float(tree.biases[node].detach()),
    )
