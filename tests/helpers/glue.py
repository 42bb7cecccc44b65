"""A GLUE folder of tiny tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset

from distil_nlp.tasks import GLUE
from tests.helpers import tiny

WORDS = ("the", "a", "cat", "dog", "bird", "fish")
TEXTS = [f"{text} {word}" for text in tiny.SENTENCES for word in WORDS]
SHUFFLED = (4, 3, 0, 2, 1, 6, 5)


def glue_folder(folder: Path, *tasks: str, with_tests: tuple[str, ...] = ()) -> None:
    """Write a small GLUE to disk; some tasks with test splits, whose rows are not in the order of `idx`."""
    configs = []
    for task in tasks:
        splits = {"train": rows(task, range(24))}
        splits |= {name: rows(task, range(12 if "mis" not in name else 9)) for name in GLUE[task].evaluation_splits}
        hidden = ["test_matched", "test_mismatched"] if task == "mnli" else ["test"]
        splits |= {name: rows(task, SHUFFLED, labelled=False) for name in hidden if task in with_tests}
        configs.append(_config(folder, task, splits))
    if "mnli" in with_tests:
        configs.append(_config(folder, "ax", {"test": rows("mnli", SHUFFLED[:5], labelled=False)}))
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(configs) + "\n---\n")


def rows(task: str, index: Sequence[int], labelled: bool = True) -> Dataset:
    """Return a split in the layout of nyu-mll/glue; labels of unlabelled rows are -1."""
    entry, count = GLUE[task], len(index)
    texts = [[TEXTS[(i * (k + 1) + k) % len(TEXTS)] for i in range(count)] for k in range(len(entry.text_columns))]
    columns = {**dict(zip(entry.text_columns, texts, strict=True)), "idx": list(index)}
    if entry.kind.output == "number":
        return Dataset.from_dict({**columns, "label": [i % 6 * 0.9 if labelled else -1.0 for i in range(count)]})
    labels = [i % len(entry.labels) if labelled else -1 for i in range(count)]
    return Dataset.from_dict({**columns, "label": labels}).cast_column("label", ClassLabel(names=list(entry.labels)))


def _config(folder: Path, name: str, splits: dict[str, Dataset]) -> str:
    (folder / name).mkdir(parents=True)
    for split, rows in splits.items():
        rows.to_parquet(folder / name / f"{split}.parquet")
    files = [f"  - {{split: {split}, path: {name}/{split}.parquet}}" for split in splits]
    return "\n".join([f"- config_name: {name}", "  data_files:", *files])
