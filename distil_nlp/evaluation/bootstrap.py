"""A bootstrap over rows: the score of a model, and the difference of two models' scores, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, RowFeatures, task_evaluator
from distil_nlp.evaluation.metrics import headline_metric
from distil_nlp.evaluation.predict import Outputs


class OtherRowsError(UserError):
    """Two models were not scored on the same rows."""


@dataclass(frozen=True)
class Gain:
    """The gain over a baseline on the task's headline metric.

    Attributes:
        metric: name of the headline metric.
        mean: mean gain over seeds.
        low: lower end of the bootstrap interval at `level`. With one seed it covers the choice of rows alone.
        high: upper end of that interval.
        level: coverage of the interval.
        resamples: draws of the rows.
        rows: evaluation rows (blocks of text, for `mlm`) that were resampled.
        seeds: pairs of models.
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
        """Return all fields, and `outside_noise`: whether the interval excludes 0."""
        return {**asdict(self), "outside_noise": self.low > 0 or self.high < 0}


def paired_gain(
    task: str,
    students: Sequence[Outputs],
    baselines: Sequence[Outputs],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Gain:
    """Return the mean over seeds of student − baseline, with a paired percentile bootstrap over rows.

    With several seeds, each resample of the rows adds the effect of another choice of seeds, drawn from Student's t,
    since resampling so few seeds would give far too narrow an interval. Its variance is that between the seeds, less
    what comes of the rows, which their draws have already. In simulations of 2, 3 and 5 seeds the 95 % interval held
    the truth in 93 to 98 of 100 cases.

    Args:
        task: name of the task, which has the headline metric.
        students: outputs for each seed, on the same rows in the same order.
        baselines: likewise; a single one stands for all seeds, where the baseline has no seed.
        resamples: number of draws.
        level: coverage of the interval.
        seed: of the draws.

    Raises:
        OtherRowsError: if the rows are not the same.

    References: Efron & Tibshirani 1993, ch. 13; for NLP Koehn 2004.
    """
    differences, rows = _differences_of(task, students, baselines)
    mean, low, high = _interval(differences, rows, resamples, level, seed)
    draws = resamples // _DRAWS * _DRAWS
    return Gain(headline_metric(task), mean, low, high, level, draws, rows, len(students))


def paired_p_value(
    task: str, students: Sequence[Outputs], baselines: Sequence[Outputs], *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value of the gain: 1 − the level at which the interval of `paired_gain` ends at 0.

    The smallest that can come out is 2 ÷ (draws + 1); it is 1 where the metric of a draw is no number.

    Args:
        task: name of the task, which has the headline metric.
        students: outputs for each seed, on the same rows in the same order.
        baselines: likewise; a single one stands for all seeds.
        resamples: number of draws.
        seed: of the draws.

    Raises:
        OtherRowsError: if the rows are not the same.
    """
    draws = _drawn_means(*_differences_of(task, students, baselines), resamples, seed)
    if not np.isfinite(draws).all():
        return 1.0
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(2 * (tail + 1) / (len(draws) + 1), 1.0))


def _differences_of(
    task: str, students: Sequence[Outputs], baselines: Sequence[Outputs]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Return (counts of each row, (draws, rows) → student − baseline on the headline metric, (draws, seeds); rows)."""
    evaluator, metric = task_evaluator(task), headline_metric(task)
    _check_rows([*students, *baselines], evaluator)
    pairs = [(evaluator.resampled(metric, a), evaluator.resampled(metric, b)) for a, b in _paired(students, baselines)]

    def differences(counts: np.ndarray) -> np.ndarray:
        return np.stack([a.value(counts) - b.value(counts) for a, b in pairs], axis=1)

    return differences, pairs[0][0].rows


def paired_difference(
    measure: tuple[RowFeatures, MetricOfSums],
    students: Sequence[Outputs],
    baselines: Sequence[Outputs],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return (mean over seeds, lower end, upper end) of student − baseline on a measure, as `paired_gain` has them.

    Args:
        measure: the measure as sums over rows.
        students: outputs for each seed.
        baselines: likewise; a single one stands for all seeds.
        resamples: number of draws.
        level: coverage of the interval.
        seed: of the draws.
    """
    features, value = measure
    pairs = [(features(a), features(b)) for a, b in _paired(students, baselines)]

    def differences(counts: np.ndarray) -> np.ndarray:
        return np.stack([value(counts @ a) - value(counts @ b) for a, b in pairs], axis=1)

    return _interval(differences, len(pairs[0][0]), resamples, level, seed)


def score_interval(
    task: str, models: Sequence[Outputs], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, float | int]:
    """Return `mean`, `low` and `high` of the headline metric over seeds, with `level`, `rows` and `seeds`.

    The bootstrap is that of `paired_gain`. Two intervals may overlap although the difference of the two models, which
    are scored on the same rows, is not noise.

    Args:
        task: name of the task, which has the headline metric.
        models: outputs for each seed, on the same rows in the same order.
        resamples: number of draws.
        level: coverage of the interval.
        seed: of the draws.
    """
    resampled = [task_evaluator(task).resampled(headline_metric(task), outputs) for outputs in models]

    def scores(counts: np.ndarray) -> np.ndarray:
        return np.stack([one.value(counts) for one in resampled], axis=1)

    rows = resampled[0].rows
    mean, low, high = _interval(scores, rows, resamples, level, seed)
    return {"mean": mean, "low": low, "high": high, "level": level, "rows": rows, "seeds": len(models)}


def _paired(students: Sequence[Outputs], baselines: Sequence[Outputs]) -> list[tuple[Outputs, Outputs]]:
    """Return each student with its baseline; a single baseline stands for all seeds."""
    several = list(baselines) * len(students) if len(baselines) == 1 else baselines
    return [*zip(students, several, strict=True)]


def _interval(
    statistic: Callable[[np.ndarray], np.ndarray], rows: int, resamples: int, level: float, seed: int
) -> tuple[float, float, float]:
    """Return (mean over seeds, lower end, upper end) of a statistic of resampled rows.

    Args:
        statistic: counts of each row, (draws, rows) → values, (draws, seeds).
    """
    drawn = _drawn_means(statistic, rows, resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return float(statistic(np.ones((1, rows))).mean()), low, high


def _drawn_means(statistic: Callable[[np.ndarray], np.ndarray], rows: int, resamples: int, seed: int) -> np.ndarray:
    """Return the mean over seeds of a statistic for each draw of rows and seeds, (draws,)."""
    generator, chances = np.random.default_rng(seed), np.full(rows, 1 / rows)
    counts = (generator.multinomial(rows, chances, _DRAWS).astype(float) for _ in range(resamples // _DRAWS))
    values = np.concatenate([*map(statistic, counts)])
    return values.mean(1) + _seed_noise(statistic(np.ones((1, rows)))[0], values, generator)


def _check_rows(outputs: Sequence[Outputs], evaluator: Evaluator) -> None:
    marks = [evaluator.row_marks(model.predictions, model.labels) for model in outputs]
    if any(not np.array_equal(mark, marks[0], equal_nan=True) for mark in marks):
        raise OtherRowsError(
            None,
            "the same evaluation rows for all students",
            "others than when this run began",
            why="the comparison would be of different rows",
            fix="set run.overwrite=true, or another training.output_dir",
        )


def _seed_noise(observed: np.ndarray, drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray | float:
    """Draw the difference between the mean over as many other seeds and that over these.

    In expectation the variance between the seeds of a draw is the observed one and that which other rows add.

    Args:
        observed: values of all rows, (seeds,).
        drawn: values of each draw of the rows, (draws, seeds).
    """
    draws, seeds = drawn.shape
    if seeds == 1:
        return 0.0
    of_rows = drawn.var(1, ddof=1).mean() - observed.var(ddof=1)
    of_seeds = max(observed.var(ddof=1) - of_rows, 0.0)
    return generator.standard_t(seeds - 1, draws) * np.sqrt(of_seeds / seeds)


_DRAWS = 100
"""Resamples drawn at once, which bounds memory to 100 × rows numbers."""


# A metric as sums over rows, so that all resamples are one product of matrices: (features of the rows, formula).


def _correct(outputs: Outputs) -> np.ndarray:
    """Return (rows, 2): correct predictions, and ones."""
    correct = outputs.predictions.argmax(-1) == outputs.labels
    return np.stack([correct, np.ones(len(correct))], axis=1)


def _confusion(outputs: Outputs) -> np.ndarray:
    """Return (rows, 4): true and false positives, false and true negatives."""
    predicted, truth = outputs.predictions.argmax(-1) == 1, outputs.labels == 1
    cells = [predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth]
    return np.stack(cells, axis=1).astype(float)


def _moments(outputs: Outputs) -> np.ndarray:
    """Return (rows, 6): 1, x, y, x², y², xy of centred predictions x and labels y."""
    x, y = outputs.predictions.reshape(-1).astype(float), outputs.labels.astype(float)
    x, y = x - x.mean(), y - y.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return the first sum ÷ the second, (draws,)."""
    return sums[:, 0] / sums[:, 1]


def f1_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return F1 of true positives, false positives and false negatives, (draws,); 0 without any."""
    correct, wrong = 2 * sums[:, 0], sums[:, 1] + sums[:, 2]
    return correct / np.maximum(correct + wrong, 1)


def _matthews(sums: np.ndarray) -> np.ndarray:
    tp, fp, fn, tn = sums.T
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, root, out=np.zeros_like(root), where=root > 0)


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums.T
    root = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
    return np.divide(n * xy - x * y, root, out=np.zeros_like(root), where=root > 0)


SUMS_OF_METRICS: dict[str, tuple[RowFeatures, MetricOfSums]] = {
    "accuracy": (_correct, ratio_of_sums),
    "f1": (_confusion, f1_of_sums),
    "matthews_correlation": (_confusion, _matthews),
    "pearson": (_moments, _pearson),
}
"""Metric → (features that it sums over rows, formula for the metric from the sums)."""
