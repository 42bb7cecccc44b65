"""Predictions on GLUE's test splits, in the files that its server takes (gluebenchmark.com/submit).

Each file has the header `index<tab>prediction` and a line for each row. MNLI, QNLI, RTE and the diagnostics (AX,
predicted by the MNLI model) are written as words, STS-B as numbers from 0 to 5, the rest as class ids.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from distil_nlp.data import load_splits, unlabelled_rows
from distil_nlp.errors import UserError
from distil_nlp.tasks import Task

FILES = {
    "cola": {"test": "CoLA.tsv"},
    "sst2": {"test": "SST-2.tsv"},
    "mrpc": {"test": "MRPC.tsv"},
    "qqp": {"test": "QQP.tsv"},
    "stsb": {"test": "STS-B.tsv"},
    "mnli": {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "ax": "AX.tsv"},
    "qnli": {"test": "QNLI.tsv"},
    "rte": {"test": "RTE.tsv"},
    "wnli": {"test": "WNLI.tsv"},
}
"""Task → split → file. `ax` is a configuration of the data, whose split is `test`."""

_IN_WORDS = ("mnli", "qnli", "rte")


@dataclass
class TestSplit:
    """Rows of a test split.

    Attributes:
        rows: tokenised.
        index: the number of each row in GLUE's own file: its `idx`, or its position.
    """

    rows: Dataset
    index: np.ndarray


def test_splits(
    data: str, splits: Mapping[str, Dataset], task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, TestSplit]:
    """Return file → rows, for each of a task's test splits that the data has."""
    tests = {file: splits[name] for name, file in FILES[task.name].items() if name in splits}
    if task.name == "mnli":
        tests |= _diagnostics(data)
    return {
        file: TestSplit(
            unlabelled_rows(rows, tokenizer, task, file.removesuffix(".tsv"), max_length=max_length),
            np.asarray(rows["idx"] if "idx" in rows.column_names else range(len(rows))),
        )
        for file, rows in tests.items()
    }


def _diagnostics(data: str) -> dict[str, Dataset]:
    try:
        return {FILES["mnli"]["ax"]: load_splits(data, "ax")["test"]}
    except (UserError, KeyError):
        return {}


def prediction_lines(task: Task, outputs: np.ndarray, index: np.ndarray) -> list[str]:
    """Return the lines of a file, by index. `outputs` are logits, (rows, classes), or numbers, (rows, 1)."""
    if task.kind.output == "number":
        predictions = [f"{value:.6f}" for value in outputs[:, 0].clip(0, 5)]
    else:
        names = task.labels if task.name in _IN_WORDS else range(len(task.labels))
        predictions = [names[i] for i in outputs.argmax(-1)]
    return ["index\tprediction", *(f"{index[i]}\t{predictions[i]}" for i in np.argsort(index, kind="stable"))]


def median_seed(scores: Mapping[int, float]) -> int:
    """Return the seed with the median score; of an even number of seeds, the lower of the two in the middle."""
    return sorted(scores, key=lambda seed: (scores[seed], seed))[(len(scores) - 1) // 2]


def assemble(folder: Path, records: list[dict[str, Any]]) -> list[str]:
    """Copy each task's predictions of its median seed (by its score on dev) to `submission/`; return a report.

    The folder is zipped if no file is missing. The report has a line for each file, and one for the archive.
    """
    submission, report = folder / "submission", []
    shutil.rmtree(submission, ignore_errors=True)
    submission.mkdir()
    for task, files in FILES.items():
        predicted = [record for record in records if record["task"] == task and record.get("predictions")]
        scores = {record["seed"]: record["metrics"]["score"] for record in predicted}
        for file in files.values() if scores else ():
            seed = median_seed(scores)
            source = folder / task / f"seed-{seed}" / file
            if source.is_file():
                shutil.copyfile(source, submission / file)
                report.append(f"{submission / file}: seed {seed}, the median of {len(scores)} by its score on dev")
    missing = [file for files in FILES.values() for file in files.values() if not (submission / file).is_file()]
    if missing:
        report.append(f"no zip, since GLUE's server wants all files; missing: {', '.join(missing)}")
    else:
        report.append(shutil.make_archive(str(submission), "zip", submission))
    return report
