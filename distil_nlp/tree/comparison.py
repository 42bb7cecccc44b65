"""The models that are compared: soft trees, scikit-learn's trees and linear model, taught by teacher and by labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.tree.inputs import TreeInputs
from distil_nlp.tree.loading import TRAIN, TreeData
from distil_nlp.tree.soft_tree import SoftDecisionTree
from distil_nlp.tree.targets import is_labelled, label_targets, teacher_targets
from distil_nlp.tree.training import TreeSettings, train_tree, walk
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

TEACHER, LABELS = "teacher", "labels"
SOFT_TREE, MIXTURE = "soft tree", "soft tree, mixture of leaves"
LOGISTIC_REGRESSION = "logistic regression"


@dataclass(frozen=True)
class ComparedModel:
    """A model of the table.

    Attributes:
        name: shown in the table.
        taught_by: `teacher`, `labels`, or empty for teacher and student.
        outputs: seed → evaluation split → outputs; the class of the greatest output is the prediction.
    """

    name: str
    taught_by: str
    outputs: Mapping[int, Mapping[str, Outputs]]


def compared_models(
    data: TreeData, inputs: TreeInputs, settings: TreeSettings, seeds: Sequence[int]
) -> tuple[SoftDecisionTree, list[ComparedModel]]:
    """Train all models; return the soft tree of the first seed that the teacher taught, and the lines of the table."""
    models = [ComparedModel("teacher", "", {seeds[0]: data.teacher})]
    if data.students:
        models.append(ComparedModel("student", "", data.students))
    trees: dict[str, dict[int, SoftDecisionTree]] = {}
    for taught_by in (TEACHER, LABELS):
        rows, targets = _lesson(data, settings, taught_by)
        trees[taught_by] = {}
        for seed in seeds:
            logger.info(f"training a soft tree taught by {taught_by} on {len(rows):,} rows, seed {seed}")
            trees[taught_by][seed] = train_tree(inputs.features[TRAIN][rows], targets, settings, seed)
        models += _soft_lines(trees[taught_by], taught_by, data, inputs)
    for taught_by in (TEACHER, LABELS):
        models += _library_models(data, inputs, settings, seeds, taught_by)
    return trees[TEACHER][seeds[0]], models


def _lesson(data: TreeData, settings: TreeSettings, taught_by: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (numbers of the rows, their targets): all rows for the teacher, the labelled ones for labels."""
    if taught_by == TEACHER:
        targets = teacher_targets(data.train, settings)
        return np.arange(len(targets)), targets
    rows = np.flatnonzero(is_labelled(data.train))
    return rows, label_targets(data.train)[rows]


def _soft_lines(
    trees: Mapping[int, SoftDecisionTree], taught_by: str, data: TreeData, inputs: TreeInputs
) -> list[ComparedModel]:
    """Return both ways in which a soft tree predicts: by its likeliest leaf, and by all leaves."""
    best: dict[int, dict[str, Outputs]] = {}
    mixtures: dict[int, dict[str, Outputs]] = {}
    for seed, tree in trees.items():
        best[seed], mixtures[seed] = {}, {}
        for split, teacher in data.teacher.items():
            paths = walk(tree, inputs.features[split])
            best[seed][split] = Outputs(tree.best_leaf_distributions(paths).detach().numpy(), teacher.labels)
            mixtures[seed][split] = Outputs(tree.mixtures(paths).detach().numpy(), teacher.labels)
    return [ComparedModel(SOFT_TREE, taught_by, best), ComparedModel(MIXTURE, taught_by, mixtures)]


def _library_models(
    data: TreeData, inputs: TreeInputs, settings: TreeSettings, seeds: Sequence[int], taught_by: str
) -> Iterator[ComparedModel]:
    """Yield scikit-learn's models on the same input; the teacher teaches them by its likeliest class."""
    rows, targets = _lesson(data, settings, taught_by)
    features, classes = inputs.features[TRAIN][rows], targets.argmax(-1)
    for name, build, has_seed in (
        (f"decision tree, depth {settings.depth}", lambda seed: _decision_tree(seed, settings.depth), True),
        ("decision tree, unlimited", _decision_tree, True),
        (LOGISTIC_REGRESSION, lambda seed: LogisticRegression(max_iter=1000), False),
    ):
        if name == LOGISTIC_REGRESSION and len(np.unique(classes)) == 1:
            logger.info(f"{name}: left out, since {taught_by} knows one class alone")
            continue
        logger.info(f"training {name}, taught by {taught_by}")
        models = {seed: _fitted(build(seed), features, classes) for seed in (seeds if has_seed else seeds[:1])}
        yield ComparedModel(name, taught_by, {seed: _outputs(model, data, inputs) for seed, model in models.items()})


def _fitted(model: Any, features: Any, classes: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, classes)


def _outputs(model: Any, data: TreeData, inputs: TreeInputs) -> dict[str, Outputs]:
    """Return the outputs of a model of scikit-learn on the evaluation splits."""
    return {
        split: Outputs(_probabilities(model, inputs.features[split], len(data.labels)), teacher.labels)
        for split, teacher in data.teacher.items()
    }


def _decision_tree(seed: int, depth: int | None = None) -> DecisionTreeClassifier:
    return DecisionTreeClassifier(max_depth=depth, random_state=seed)


def _probabilities(model: Any, features: Any, num_classes: int) -> np.ndarray:
    """Return probabilities of all classes, 0 for those that the model has not seen, (rows, classes)."""
    probabilities = np.zeros((features.shape[0], num_classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities
