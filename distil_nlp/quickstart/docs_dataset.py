"""A text classification dataset made of the documentation of installed packages.

The question: *which library does this paragraph of documentation come from?* The paragraphs are the English
prose in the docstrings of packages that this project depends on (directly, or through torch), so the task
needs no download. Sources are parsed with `ast`; nothing is imported.

Measures that make the score meaningful:

* **Names are masked.** A library's own name gives the label away, so the names and usual import aliases of
  the libraries and their neighbours become the word "library" in every paragraph. Other vocabulary stays
  ("tensor", "node", "estimator"): a model may learn what a library is about, which is the task, and, less
  nobly, how its authors write. Links are removed too.
* **The split is by file**, by a hash of the file's path, and no two files share wording: a paragraph with a
  run of eight words that also occurs in another file (boilerplate, "copied from") is dropped from both, so
  near-copies cannot sit in train and test or under two labels.
* **Choices are hashes**, never the order of a folder, and one file gives at most `max_per_file` paragraphs.

The rows depend on the installed versions, which the dataset card therefore lists.
"""

import dataclasses
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distil_nlp.errors import UserError
from distil_nlp.quickstart.prose import Paragraph, read_file, without_shared_wording
from distil_nlp.quickstart.sources import STDLIB, fraction, library_root, source_files, version

SPLITS = ("train", "validation", "test")
DATASET_CARD = """---
language: en
task_categories: [text-classification]
configs:
- config_name: default
  data_files:
{files}---
# Which library does this paragraph of documentation come from?

English prose from the docstrings of installed Python packages, read from their sources. Each text remains
under the licence of its package. The libraries' names are masked with the word "library", the splits share
no file, and no two files share a run of eight words. The first {labelled} training rows of each library have a label.

| label | version | train | validation | test |
|---|---|---|---|---|
{rows}

Always answering with the most frequent library is right for {majority:.3f} of the test rows.

Made by `distil_nlp.quickstart.docs_dataset` with `{parameters}`.
"""


@dataclasses.dataclass(frozen=True)
class DocsParameters:
    """The parameters of the dataset; `train`, `validation` and `test` count rows per library.

    Of the training rows `labelled` per library keep their label; the others are text without one, as most text is.
    Too few long paragraphs in a library give fewer rows. `max_files` bounds the reading time: torch alone has
    thousands of files.
    """

    libraries: tuple[str, ...] = ("networkx", "sklearn", STDLIB, "sympy", "torch")
    train: int = 320
    labelled: int = 60
    validation: int = 100
    test: int = 400
    min_words: int = 30
    max_words: int = 120
    max_per_file: int = 20
    max_files: int = 1000
    seed: int = 0


def write_docs(folder: Path, parameters: DocsParameters = DocsParameters()) -> dict[str, Counter[str]]:
    """Write `{train,validation,test}.parquet` and a dataset card; return {split: rows per library}.

    `datasets.load_dataset(folder)` gives the columns `text` and `label`, the latter a `ClassLabel`.

    Raises:
        UserError: if a library is not installed, or has no paragraph for one of the splits.
    """
    import datasets  # here, because the processes that read the sources import this module but not that

    roots = {library: library_root(library) for library in parameters.libraries}
    rows = select(extract(roots, parameters), parameters)
    label = datasets.ClassLabel(names=list(parameters.libraries))
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    folder.mkdir(parents=True, exist_ok=True)
    for split, paragraphs in rows.items():
        labels = first_labels(paragraphs, parameters.labelled if split == "train" else None)
        columns = {"text": [row.text for row in paragraphs], "label": labels}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    counts = {split: Counter(row.library for row in paragraphs) for split, paragraphs in rows.items()}
    (folder / "README.md").write_text(card(parameters, counts), encoding="utf-8")
    return counts


def first_labels(paragraphs: Sequence[Paragraph], limit: int | None) -> list[str | None]:
    """Return the library of each paragraph as its label, each at most `limit` times and None after that."""
    counts: Counter[str] = Counter()
    labels = []
    for paragraph in paragraphs:
        counts[paragraph.library] += 1
        labels.append(paragraph.library if limit is None or counts[paragraph.library] <= limit else None)
    return labels


def extract(roots: Mapping[str, Path], parameters: DocsParameters) -> list[Paragraph]:
    """Return all paragraphs of the libraries, read in parallel, in the order of file names."""
    files: dict[str, Path] = {}
    for library, root in roots.items():
        files |= source_files(library, root, parameters.max_files, parameters.seed)
    names = sorted(files)
    jobs = [(str(files[name]), parameters.min_words, parameters.max_words) for name in names]
    if len(jobs) < 64:  # not worth starting processes
        texts = [read_file(*job) for job in jobs]
    else:  # "spawn": forking a process that has threads (BLAS) may hang
        with multiprocessing.get_context("spawn").Pool(min(16, os.cpu_count() or 1)) as pool:
            texts = pool.starmap(read_file, jobs, chunksize=16)
    rows = zip(names, texts, strict=True)
    return [Paragraph(name.split("/")[0], name, text) for name, paragraphs in rows for text in paragraphs]


def split_of(file: str, seed: int) -> str:
    """Return the split of all paragraphs of a file; 70 % of the files are train, 10 % validation, 20 % test."""
    position = fraction(f"split:{file}", seed)
    return "train" if position < 0.7 else "validation" if position < 0.8 else "test"


def select(paragraphs: Iterable[Paragraph], parameters: DocsParameters) -> dict[str, list[Paragraph]]:
    """Return {split: paragraphs}, of each library at most as many as the parameters say, all chosen by hash.

    Raises:
        UserError: if a library has no paragraph for one of the splits.
    """
    room = {(split, library): getattr(parameters, split) for library in parameters.libraries for split in SPLITS}
    per_file: Counter[str] = Counter()
    chosen: dict[str, list[Paragraph]] = {split: [] for split in SPLITS}
    order = sorted(paragraphs, key=lambda row: fraction(f"{row.file}:{row.text}", parameters.seed))
    for paragraph in without_shared_wording(order):
        place = split_of(paragraph.file, parameters.seed), paragraph.library
        if room[place] and per_file[paragraph.file] < parameters.max_per_file:
            room[place] -= 1
            per_file[paragraph.file] += 1
            chosen[place[0]].append(paragraph)
    for split, library in room:
        if not any(paragraph.library == library for paragraph in chosen[split]):
            raise UserError(
                "libraries",
                f"paragraphs of '{library}' in the split '{split}'",
                "none",
                why="the class could not be learnt or scored",
                fix="name another library, or raise max_files",
            )
    return chosen


def card(parameters: DocsParameters, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return the dataset card: the task, the source of each text, and the numbers of rows."""
    rows = [
        " | ".join(["", library, version(library), *(str(counts[split][library]) for split in SPLITS), ""]).strip()
        for library in parameters.libraries
    ]
    files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in SPLITS)
    majority = majority_rate(counts["test"])
    return DATASET_CARD.format(
        files=files, rows="\n".join(rows), majority=majority, labelled=parameters.labelled, parameters=parameters
    )


def majority_rate(counts: Mapping[str, int]) -> float:
    """Return the accuracy of the majority-class baseline."""
    return max(counts.values()) / sum(counts.values())


def fingerprint(parameters: DocsParameters) -> dict[str, object]:
    """Return all that the dataset depends on as plain JSON values: the parameters and the libraries' versions."""
    libraries = {library: version(library) for library in parameters.libraries}
    return dataclasses.asdict(parameters) | {"libraries": libraries}
