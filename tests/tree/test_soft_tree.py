"""The arithmetic of a soft decision tree, beside a float64 version that walks every way by itself."""

import itertools
import math

import numpy as np
import pytest
import torch

from distil_nlp.tree.loss import BalancePenalty, path_cross_entropy
from distil_nlp.tree.soft_tree import SoftDecisionTree
from distil_nlp.tree.training import TreeSettings, train_tree, walk

DEPTH, FEATURES, CLASSES, BETA = 3, 5, 4, 1.7


def example_tree():
    return SoftDecisionTree(FEATURES, CLASSES, DEPTH, BETA, seed=3).double()


def example_rows(count=6, seed=0):
    draws = np.random.default_rng(seed)
    return torch.from_numpy(3 * draws.normal(size=(count, FEATURES))), draws.dirichlet(np.ones(CLASSES), size=count)


def right_probability(tree, node, row):
    """σ(β (x·w + b)) of a node, in plain Python."""
    weights, bias = tree.weights[node].tolist(), tree.biases[node].item()
    activation = BETA * (sum(w * x for w, x in zip(weights, row.tolist(), strict=True)) + bias)
    return 1 / (1 + math.exp(-activation))


def naive_paths(tree, row):
    """(probability of arriving at each inner node, probability of each leaf), one way after the other."""
    nodes, leaves = {}, []
    for turns in itertools.product((0, 1), repeat=tree.depth):
        node, probability = 0, 1.0
        for turn in turns:
            nodes[node] = probability
            right = right_probability(tree, node, row)
            probability *= right if turn else 1 - right
            node = 2 * node + 1 + turn
        leaves.append(probability)
    return [nodes[i] for i in range(len(nodes))], leaves


def naive_leaves(tree):
    logits = tree.leaf_logits.tolist()
    return [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in logits]


def test_ways_and_predictions_are_those_of_the_paper():
    """Prevents leaves in another order than the nodes, and a mixture of logits in the place of distributions."""
    tree = example_tree()
    rows, _ = example_rows()
    paths, distributions = tree(rows), naive_leaves(tree)
    for i, row in enumerate(rows):
        nodes, leaves = naive_paths(tree, row)
        assert paths.log_nodes[i].exp().tolist() == pytest.approx(nodes)
        assert paths.log_leaves[i].exp().tolist() == pytest.approx(leaves)
        assert sum(leaves) == pytest.approx(1)
        mixture = [sum(p * q[k] for p, q in zip(leaves, distributions, strict=True)) for k in range(CLASSES)]
        assert tree.mixtures(paths)[i].exp().tolist() == pytest.approx(mixture)
        assert tree.best_leaf_distributions(paths)[i].exp().tolist() == pytest.approx(
            distributions[leaves.index(max(leaves))]
        )


def test_the_loss_weights_each_leafs_cross_entropy():
    """Prevents the cross-entropy of the mixture, which is another loss, and sums in the place of means."""
    tree = example_tree()
    rows, targets = example_rows()
    loss = path_cross_entropy(tree(rows).log_leaves, tree.leaf_log_probabilities(), torch.from_numpy(targets))
    expected = 0.0
    for row, target in zip(rows, targets, strict=True):
        for probability, leaf in zip(naive_paths(tree, row)[1], naive_leaves(tree), strict=True):
            expected -= probability * sum(t * math.log(q) for t, q in zip(target, leaf, strict=True))
    assert loss.item() == pytest.approx(expected / len(rows))


def test_the_penalty_is_a_running_mean_that_fades_with_depth():
    """Prevents a penalty without its decay, its halves or its memory, over three batches."""
    tree, strength = example_tree(), 0.3
    penalty, sums = BalancePenalty(DEPTH, strength).double(), {}
    for seed in range(3):
        rows, _ = example_rows(seed=seed)
        value, expected = penalty(tree(rows)), 0.0
        for node in range(2**DEPTH - 1):
            depth = int(math.log2(node + 1))
            arrived = [naive_paths(tree, row)[0][node] for row in rows]
            rights = [p * right_probability(tree, node, row) for p, row in zip(arrived, rows, strict=True)]
            keep = 1 - 2**-depth
            before = sums.get(node, (0.0, 0.0))
            sums[node] = tuple(
                keep * old + (1 - keep) * sum(new) / len(rows)
                for old, new in zip(before, (rights, arrived), strict=True)
            )
            alpha = sums[node][0] / sums[node][1]
            expected -= strength * 2**-depth * (0.5 * math.log(alpha) + 0.5 * math.log(1 - alpha))
        assert value.item() == pytest.approx(expected)


def test_a_balanced_node_has_the_least_penalty():
    """Prevents a penalty of the wrong sign: half and half is best, and costs λ 2^−d log 2 a node."""
    tree = example_tree()
    with torch.no_grad():
        tree.weights.zero_()
    best = BalancePenalty(DEPTH, 1.0).double()(tree(example_rows()[0])).item()
    assert best == pytest.approx(DEPTH * math.log(2))
    with torch.no_grad():
        tree.biases.fill_(0.4)
    assert BalancePenalty(DEPTH, 1.0).double()(tree(example_rows()[0])).item() > best


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_a_tree_that_is_sure_has_finite_losses_and_gradients(scale):
    """Prevents NaN from sigmoids that are exactly 0 or 1, the known fault of other implementations."""
    tree, penalty = SoftDecisionTree(FEATURES, CLASSES, DEPTH, seed=1), BalancePenalty(DEPTH, 0.1)
    with torch.no_grad():
        tree.weights.mul_(scale)
        tree.weights[0], tree.biases[0] = 0, scale  # all rows go right
        tree.leaf_logits.mul_(scale)
    rows, targets = example_rows()
    for _ in range(2):
        paths = tree(rows.float())
        assert (paths.log_left[:, 0] < -100).all()
        loss = path_cross_entropy(
            paths.log_leaves, tree.leaf_log_probabilities(), torch.from_numpy(targets).float()
        ) + penalty(paths)
        loss.backward()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in tree.parameters())
    assert torch.isfinite(tree.mixtures(tree(rows.float()))).all()


def toy():
    """Four classes in four corners: no single cut tells them apart."""
    draws = np.random.default_rng(0)
    classes = draws.integers(4, size=200)
    centres = np.array([[2, 2], [2, -2], [-2, 2], [-2, -2]])[classes]
    return centres + 0.3 * draws.normal(size=(200, 2)), classes


def test_a_tree_learns_and_learns_the_same_again():
    """Prevents a tree that cannot fit four corners, a seed that is not used, and one that is used for half."""
    inputs, classes = toy()
    settings = TreeSettings(depth=2, epochs=60, learning_rate=0.1)
    trees = [train_tree(inputs, np.eye(4)[classes], settings, seed) for seed in (0, 0, 1)]
    for tree in trees:
        predicted = tree.best_leaf_distributions(walk(tree, inputs)).argmax(-1).numpy()
        assert (predicted == classes).mean() > 0.95
    assert torch.equal(trees[0].weights, trees[1].weights)
    assert not torch.equal(trees[0].weights, trees[2].weights)


def test_a_training_ends_in_bounded_time():
    """Prevents hours on a large dataset: passes are cut at a number of steps."""
    settings = TreeSettings(epochs=20, batch_size=64)
    assert settings.steps(995) == 20 * 16
    assert settings.steps(10**6) == settings.max_steps
