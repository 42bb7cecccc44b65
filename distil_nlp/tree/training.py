"""Training of a soft decision tree on targets, by mini-batches with Adam."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distil_nlp.tree.loss import BalancePenalty, path_cross_entropy
from distil_nlp.tree.soft_tree import SoftDecisionTree, TreePaths

_SCORED_AT_ONCE = 512


@dataclass(frozen=True)
class TreeSettings:
    """Settings of a tree and its training. But for the penalty's form they are values of our own.

    Attributes:
        depth: decisions on the way to a leaf.
        temperature: T of the teacher's distribution, softmax(logits ÷ T).
        label_weight: share of the label in the target of a labelled row, 0 to 1; the rest is the teacher's.
        penalty: λ of `BalancePenalty`.
        beta: inverse temperature of the decisions.
        epochs: passes over the rows, cut at `max_steps` mini-batches.
        batch_size: rows of a mini-batch.
        learning_rate: of Adam; it falls to 0 linearly.
    """

    depth: int = 6
    temperature: float = 1.0
    label_weight: float = 0.0
    penalty: float = 0.1
    beta: float = 1.0
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.02
    max_steps: int = 2000

    def steps(self, rows: int) -> int:
        """Return the mini-batches of a training on so many rows."""
        return min(self.epochs * math.ceil(rows / self.batch_size), self.max_steps)


def train_tree(inputs: Any, targets: np.ndarray, settings: TreeSettings, seed: int) -> SoftDecisionTree:
    """Return a tree trained on the CPU by one thread; the same arguments give the same tree, on any number of cores.

    A step is some hundred small operations, which more threads would not make faster.

    Args:
        inputs: (rows, features), an array or a sparse matrix.
        targets: distributions, (rows, classes).
        settings: of tree and training.
        seed: of the first weights and of the order of rows.
    """
    with _one_thread():
        return _train(inputs, targets, settings, seed)


def _train(inputs: Any, targets: np.ndarray, settings: TreeSettings, seed: int) -> SoftDecisionTree:
    tree = SoftDecisionTree(inputs.shape[1], targets.shape[1], settings.depth, settings.beta, seed)
    penalty = BalancePenalty(settings.depth, settings.penalty)
    optimizer = torch.optim.Adam(tree.parameters(), lr=settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, settings.steps(len(targets)))
    wanted = torch.from_numpy(targets).float()
    for rows in _batches(len(targets), settings, seed):
        paths = tree(rows_tensor(inputs, rows))
        loss = path_cross_entropy(paths.log_leaves, tree.leaf_log_probabilities(), wanted[rows]) + penalty(paths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return tree.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batches(count: int, settings: TreeSettings, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of each step: one random order of all rows after another."""
    draws, order = np.random.default_rng(seed), np.empty(0, dtype=np.int64)
    for _ in range(settings.steps(count)):
        if not len(order):
            order = draws.permutation(count)
        rows, order = order[: settings.batch_size], order[settings.batch_size :]
        yield rows


def rows_tensor(inputs: Any, rows: Any) -> Tensor:
    """Return rows of an array as a float tensor, and those of a sparse matrix as a sparse one."""
    chosen = inputs[rows]
    if isinstance(chosen, np.ndarray):
        return torch.from_numpy(chosen).float()
    places = chosen.tocoo()
    indices = torch.from_numpy(np.stack([places.row, places.col])).long()
    return torch.sparse_coo_tensor(indices, torch.from_numpy(places.data).float(), places.shape, check_invariants=False)


@torch.no_grad()
def walk(tree: SoftDecisionTree, inputs: Any) -> TreePaths:
    """Return the ways of all rows through a tree."""
    starts = range(0, inputs.shape[0], _SCORED_AT_ONCE)
    parts = [vars(tree(rows_tensor(inputs, slice(start, start + _SCORED_AT_ONCE)))) for start in starts]
    return TreePaths(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
