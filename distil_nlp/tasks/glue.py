"""The nine GLUE tasks, and all tasks by name."""

from distil_nlp.tasks.base import CUSTOM_TASKS, Task

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

TASKS = {name: task for name, task in CUSTOM_TASKS.items() if not task.kind.has_labels} | GLUE | CUSTOM_TASKS
"""Every value of `data.task`."""
