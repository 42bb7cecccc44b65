"""Inputs that users reported, folder by folder: each ends as its `expected.txt` says. Skipped where they are absent."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from distil_nlp.cli import distill
from distil_nlp.data import MaskingCollator, load_corpus, load_splits
from distil_nlp.models import build_student, load_model, load_tokenizer
from distil_nlp.tasks import Head
from tests.helpers import ROOT
from tests.helpers.messages import one_line

pytestmark = pytest.mark.integration

UNTRAINED = "run.accept_weak_teacher=true"
"""For teachers that were never trained, where something else is looked at."""
UNTIMED = "evaluation.efficiency=off"
"""For runs that end: latencies of all families are measured elsewhere, and take most of a minute here."""


@dataclass(frozen=True)
class Case:
    """A folder with a recipe, and how a run of it ends.

    Attributes:
        folder: its name.
        overrides: of the recipe.
        code: exit code.
        said: patterns of the message, in any order.
        then: what is looked at in the folder afterwards.
    """

    folder: str
    overrides: tuple[str, ...] = ()
    code: int = 0
    said: tuple[str, ...] = ()
    then: Callable[[], None] | None = None

    def __str__(self) -> str:
        return "-".join([self.folder, *(override.rpartition("=")[2] for override in self.overrides)])


def results() -> dict:
    return json.loads(Path("out/results.json").read_text())


def all_rows_were_read() -> None:
    assert results()["rows"]["train"] == 120
    assert results()["rows"]["evaluation"] == {"validation": 40}


def blocks_are_whole() -> None:
    teacher = load_model("teacher", Head("classification", None, 2))
    student, _ = build_student(teacher, [1, 3])
    theirs = teacher.state_dict()
    for part in ("attentions.{}.q_lin.weight", "layer_norm1.{}.weight", "ffns.{}.lin1.weight", "layer_norm2.{}.bias"):
        for block, wanted in enumerate((1, 3)):
            ours = student.state_dict()[f"transformer.{part.format(block)}"]
            assert torch.equal(ours, theirs[f"transformer.{part.format(wanted)}"]), part


def a_pipeline_gives_probabilities() -> None:
    said = pipeline("text-classification", "out/student")("the soup was lovely", top_k=None)
    assert sum(one["score"] for one in said) == pytest.approx(1, abs=1e-3)


def the_student_is_plain() -> None:
    model = AutoModelForSequenceClassification.from_pretrained("out/student")
    assert model.config.num_hidden_layers == 1


def the_teacher_is_good() -> None:
    assert results()["teacher"]["metrics"]["accuracy"] == pytest.approx(0.8, abs=0.01)


def a_sixth_is_masked() -> None:
    tokenizer = load_tokenizer("teacher")
    rows = load_corpus(load_splits("./text.txt"), tokenizer, max_length=64, held_out_share=0.1).train
    collator = MaskingCollator(tokenizer, 0.15, whole_words=True)
    shares = [float((collator([row])["labels"] != -100).float().mean()) for row in rows]
    assert 0.1 < sum(shares) / len(shares) < 0.2
    assert max(shares) < 0.3


CASES = [
    Case("classes-without-names", (), 2, (r"LABEL_0", r"unhappy, happy", r"data\.label_names")),
    Case("flaubert-layers", (UNTRAINED,), 0, (), blocks_are_whole),
    Case("longformer-states", (UNTRAINED,), 0),
    Case("longformer-states", (UNTRAINED, "student.config={}"), 0),
    Case("mnli-teacher-of-another-order", (), 0, (r"contradiction",), the_teacher_is_good),
    Case(
        "mnli-teacher-of-another-order",
        ("teacher.name=./teacher-unnamed",),
        0,
        (r"0\.800 instead of 0\.550", r"data\.label_names"),
    ),
    Case("multi-label-teacher", (), 2, (r"multi_label_classification",)),
    Case("narrower-deberta", (UNTRAINED,), 0),
    Case("narrower-deberta", (UNTRAINED, "student.config={}", "data.max_length=128"), 0),
    Case("one-file-of-rows", (), 0, (r"are kept for scoring",)),
    Case("one-file-of-rows", ("data.evaluation_splits=[train]",), 2, (r"train",)),
    Case("output-attentions-in-config", (), 0, (), the_student_is_plain),
    Case("positions-after-the-padding", (), 2, (r"data\.max_length", r"62")),
    Case("positions-after-the-padding", ("teacher.name=./data2vec",), 0),
    Case("prefixed-checkpoint", (), 2, (r"_orig_mod\.",)),
    Case("prefixed-checkpoint", ("teacher.finetune=null",), 2, (r"_orig_mod\.",)),
    Case("segments-a-roberta-has-not", (UNTRAINED,), 0),
    Case("settings-that-train-refuses", (), 2, (r"training", r"lr_scheduler_kwargs")),
    Case(
        "settings-that-train-refuses",
        ("training.lr_scheduler_type=cosine_with_min_lr",),
        2,
        (r"training", r"min_lr"),
    ),
    Case(
        "settings-that-train-refuses",
        ("training.lr_scheduler_type=linear", "training.optim=adamw_bnb_8bit"),
        2,
        (r"training", r"bitsandbytes"),
    ),
    Case(
        "settings-that-train-refuses",
        ("training.lr_scheduler_type=linear", "teacher.name=./mpnet", "training.gradient_checkpointing=true"),
        2,
        (r"training", r"checkpointing"),
    ),
    Case("tsv-open-quotes", (), 0, (), all_rows_were_read),
    Case("vocabulary-with-a-hole", (), 0),
    Case("weights-nobody-reads", (), 2, (r"distance_embedding",)),
    Case("whole-words-without-spaces", (), 0, (), a_sixth_is_masked),
]


@pytest.fixture
def folder(shared, tmp_path, monkeypatch, capsys):
    """A function that copies a case and makes its model there; the working folder is the copy then."""

    def prepare(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(shared / "cases" / name, place)
        subprocess.run(["chmod", "-R", "u+w", place], check=True)
        monkeypatch.chdir(place)
        if Path("make_model.py").is_file():
            runpy.run_path("make_model.py")
        capsys.readouterr()
        return place

    return prepare


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_reported_case_ends_as_expected(folder, capsys, case):
    folder(case.folder)
    untimed = [] if case.code else [UNTIMED]
    code = distill(["recipe.yaml", *untimed, *case.overrides])
    output = capsys.readouterr()
    said = one_line(output.err + output.out)
    assert code == case.code, output.err[-2000:]
    assert "Traceback" not in said
    for pattern in case.said:
        assert re.search(pattern, said), f"{pattern} is not in: {output.err[-2000:]}"
    if case.code:
        assert not list(Path().rglob("teachers/*/*.*")), "refused after the teacher was fine-tuned"
    if case.then:
        case.then()


def test_every_reported_folder_is_tried(shared):
    """Prevents a folder that nobody runs. Those of the other tests are tried there from tiny models."""
    folders = {path.name for path in (shared / "cases").iterdir() if (path / "recipe.yaml").is_file()}
    assert folders == {case.folder for case in CASES}


def test_a_study_writes_nothing_outside_its_folder(folder, capsys):
    folder("redteam-study-escape")
    from distil_nlp.cli import study

    assert study(["study.yaml", "--output", "st/deep"]) == 2
    assert "../../escaped" in one_line(capsys.readouterr().err)
    assert sorted(path.name for path in Path().rglob("*.yaml")) == ["r.yaml", "study.yaml"]


def test_a_bomb_is_refused_at_once(shared):
    """300 bytes of aliases, ten times as much with each level: a short message, in little time and memory."""
    script = shared / "cases" / "redteam-yaml-bomb" / "repro.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, script, "10"], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "rc 2" in ended.stdout
    assert len(ended.stdout + ended.stderr) < 3000
