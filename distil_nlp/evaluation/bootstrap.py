"""Is one student better than another? The difference of their scores, and an interval around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, RowFeatures, task_evaluator
from distil_nlp.evaluation.metrics import headline_metric
from distil_nlp.evaluation.predict import Outputs


@dataclass(frozen=True)
class Gain:
    """How much better than a baseline, on the task's headline metric.

    Attributes:
        low, high: ends of the bootstrap interval at `level`. With one seed it covers the choice of rows alone.
        rows: evaluation rows (blocks of text, for `mlm`) that were resampled.
    """

    metric: str
    mean: float
    low: float
    high: float
    level: float
    resamples: int
    rows: int
    seeds: int

    def to_dict(self) -> dict[str, float | int | str | bool]:
        return {**asdict(self), "outside_noise": self.low > 0 or self.high < 0}


def paired_gain(
    task: str,
    ours: Sequence[Outputs],
    theirs: Sequence[Outputs],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Gain:
    """Mean over seeds of ours − theirs, with a paired percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13;
    for NLP Koehn 2004).

    Where there are several seeds, each resample of the rows adds what another choice of seeds would give, drawn from
    Student's t: so few seeds, themselves resampled, would be far too sure.

    Args:
        ours, theirs: one for each seed, on the same rows in the same order. Theirs may be a single one, for what has no
            seed.

    Raises:
        UserError: if the rows are not the same.
    """
    if len(theirs) == 1:
        theirs = list(theirs) * len(ours)
    evaluator = task_evaluator(task)
    features, metric = evaluator.resampling(headline_metric(task))
    _check_rows([*ours, *theirs], evaluator)
    pairs = [(features(a), features(b)) for a, b in zip(ours, theirs, strict=True)]
    rows, generator = len(pairs[0][0]), np.random.default_rng(seed)

    def differences(counts: np.ndarray) -> np.ndarray:
        """(draws, seeds), where `counts` (draws, rows) tells how often each row was drawn."""
        return np.stack([metric(counts @ a) - metric(counts @ b) for a, b in pairs], axis=1)

    drawn = []
    for _ in range(resamples // _DRAWS):
        found = differences(generator.multinomial(rows, np.full(rows, 1 / rows), _DRAWS).astype(float))
        drawn.append(found.mean(1) + _of_other_seeds(found, generator))
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2]).tolist()
    mean = float(differences(np.ones((1, rows))).mean())
    return Gain(headline_metric(task), mean, low, high, level, len(drawn) * _DRAWS, rows, len(pairs))


def _check_rows(outputs: Sequence[Outputs], evaluator: Evaluator) -> None:
    marks = [evaluator.row_marks(model.predictions, model.labels) for model in outputs]
    if any(not np.array_equal(mark, marks[0], equal_nan=True) for mark in marks):
        raise UserError(
            None,
            "the same evaluation rows for all students",
            "others than when this run began",
            why="the comparison would be of unlike rows",
            fix="set run.overwrite=true, or another training.output_dir",
        )


def _of_other_seeds(found: np.ndarray, generator: np.random.Generator) -> np.ndarray | float:
    """How far the mean over as many other seeds might lie from the mean over these; `found` is (draws, seeds)."""
    draws, seeds = found.shape
    if seeds == 1:
        return 0.0
    return generator.standard_t(seeds - 1, draws) * found.std(1, ddof=1) / np.sqrt(seeds)


_DRAWS = 100
"""Resamples drawn at once: bounds memory to 100 × rows numbers."""


# A metric as sums over rows, so that all resamples are one product of matrices: (features of the rows, formula).


def _right(seen: Outputs) -> np.ndarray:
    right = seen.predictions.argmax(-1) == seen.labels
    return np.stack([right, np.ones(len(right))], axis=1)


def _confusion(seen: Outputs) -> np.ndarray:
    """(rows, 4): true and false positives, false and true negatives."""
    said, truth = seen.predictions.argmax(-1) == 1, seen.labels == 1
    return np.stack([said & truth, said & ~truth, ~said & truth, ~said & ~truth], axis=1).astype(float)


def _moments(seen: Outputs) -> np.ndarray:
    x, y = (
        values - values.mean() for values in (seen.predictions.reshape(-1).astype(float), seen.labels.astype(float))
    )
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _f1(sums: np.ndarray) -> np.ndarray:
    hits, wrong = 2 * sums[:, 0], sums[:, 1] + sums[:, 2]
    return hits / np.maximum(hits + wrong, 1)


def _matthews(sums: np.ndarray) -> np.ndarray:
    tp, fp, fn, tn = sums.T
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, root, out=np.zeros_like(root), where=root > 0)


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums.T
    root = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
    return np.divide(n * xy - x * y, root, out=np.zeros_like(root), where=root > 0)


SUMS_OF_METRICS: dict[str, tuple[RowFeatures, MetricOfSums]] = {
    "accuracy": (_right, ratio_of_sums),
    "f1": (_confusion, _f1),
    "matthews_correlation": (_confusion, _matthews),
    "pearson": (_moments, _pearson),
}
"""Metric → what it sums over rows, and the metric of the sums."""
