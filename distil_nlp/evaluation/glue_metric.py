"""GLUE's official metrics as a module of `evaluate`, which loads it from its path, offline.

`evaluate` copies this file and scans its imports line by line: it has one import per line, and none of this package.
"""

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

_DESCRIPTION = """Accuracy, F1, Matthews correlation, Pearson and Spearman correlation as the GLUE benchmark
(Wang et al. 2018) takes them for each task; `classification` and `regression` for a dataset of one's own."""

_CITATION = """@inproceedings{wang2019glue, title={{GLUE}: A Multi-Task Benchmark and Analysis Platform for
Natural Language Understanding}, author={Wang, Alex and others}, booktitle={ICLR}, year={2019}}"""


def _correlation(function, predictions, references):
    """Return a correlation, NaN where one side is constant."""
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return float("nan")
    return float(function(predictions, references)[0])


_METRICS = {
    "accuracy": lambda p, r: float(accuracy_score(r, p)),
    "f1": lambda p, r: float(f1_score(r, p, zero_division=0)),
    "f1_macro": lambda p, r: float(f1_score(r, p, average="macro", zero_division=0)),
    "matthews_correlation": lambda p, r: float(matthews_corrcoef(r, p)),
    "pearson": lambda p, r: _correlation(pearsonr, p, r),
    "spearmanr": lambda p, r: _correlation(spearmanr, p, r),
    "mse": lambda p, r: float(np.mean((np.asarray(p) - np.asarray(r)) ** 2)),
}

METRICS_OF_TASKS = {
    "cola": ["matthews_correlation"],
    "sst2": ["accuracy"],
    "mrpc": ["accuracy", "f1"],
    "qqp": ["accuracy", "f1"],
    "stsb": ["pearson", "spearmanr"],
    "mnli": ["accuracy"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
    "wnli": ["accuracy"],
    "classification": ["accuracy", "f1_macro"],
    "regression": ["pearson", "spearmanr", "mse"],
}


class GlueMetric(evaluate.Metric):
    """One GLUE task's metrics, as fractions; the configuration is the task's name."""

    def _info(self):
        if self.config_name not in METRICS_OF_TASKS:
            raise KeyError(f"expected one of {', '.join(METRICS_OF_TASKS)} / got {self.config_name}")
        value = datasets.Value("float32" if self.config_name in ("stsb", "regression") else "int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description="predictions: class ids or numbers; references: the same",
            features=datasets.Features({"predictions": value, "references": value}),
            format="numpy",
        )

    def _compute(self, predictions, references):
        return {name: _METRICS[name](predictions, references) for name in METRICS_OF_TASKS[self.config_name]}
