"""Tasks as a table: columns, labels, splits, metrics. Data, no branches."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["mlm", "classification", "regression"]


@dataclass(frozen=True)
class Task:
    """One downstream task, in the layout of `nyu-mll/glue`.

    Attributes:
        name: as in GLUE, and the name of the dataset's configuration; or the kind, for a dataset of one's own.
        text_columns: one column, or two for a pair.
        labels: class names in the order of their ids; empty where the data must tell them, and for regression.
        headline: the metric that retention is taken on.
        kind: classification or regression.
        evaluation_splits: the labelled splits that scores are reported on. GLUE's test labels are not public.
        label_column: where the label stands.
    """

    name: str
    text_columns: tuple[str, ...]
    labels: tuple[str, ...] = ()
    headline: str = "accuracy"
    kind: Kind = "classification"
    evaluation_splits: tuple[str, ...] = ("validation",)
    label_column: str = "label"


_ENTAILMENT = ("entailment", "not_entailment")
_PARAPHRASE = ("not_equivalent", "equivalent")
_MNLI_SPLITS = ("validation_matched", "validation_mismatched")

GLUE = {
    task.name: task
    for task in (
        Task("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews_correlation"),
        Task("sst2", ("sentence",), ("negative", "positive")),
        Task("mrpc", ("sentence1", "sentence2"), _PARAPHRASE, "f1"),
        Task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "f1"),
        Task("stsb", ("sentence1", "sentence2"), (), "pearson", kind="regression"),
        Task("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"),
             evaluation_splits=_MNLI_SPLITS),
        Task("qnli", ("question", "sentence"), _ENTAILMENT),
        Task("rte", ("sentence1", "sentence2"), _ENTAILMENT),
        Task("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment")),
    )
}  # fmt: skip
"""The nine GLUE tasks (Wang et al. 2018, arXiv:1804.07461)."""

_OWN_SPLITS = ("test", "validation", "dev")

OWN = {
    "classification": Task("classification", ("text",), evaluation_splits=_OWN_SPLITS),
    "regression": Task("regression", ("text",), (), "pearson", "regression", _OWN_SPLITS),
}
"""A dataset of one's own, whose columns the recipe names; scores are reported on the first split that exists."""
