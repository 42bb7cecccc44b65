"""Whole runs of students that train together with further modules: what is left, scored and told; what is refused."""

import json
import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distil_nlp.pipeline import distill as stages
from distil_nlp.reporting.joint import joint_sentences
from distil_nlp.reporting.plots.exits import exits_figure
from distil_nlp.results import read_runs
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "write_report", lambda folders: folders[0] / "report" / "report.html")
    return Place(tmp_path).prepare()


def logits_of(folder, texts):
    model, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        return model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits


def test_a_run_with_exits_leaves_a_plain_student_of_each_depth(place, monkeypatch, capsys):
    """Prevents exits that are not scored, timed, told or saved, and a student that still carries them."""
    told = ["student.num_layers=3", "student.exits=[1, 2]", "evaluation.efficiency=quick"]
    assert place.run(*told, "evaluation.baselines=[no_distillation]") == 0
    results = place.results
    assert [(one["layers"], one["folder"]) for one in results["exits"]] == [
        (1, "exits/1-layers"),
        (2, "exits/2-layers"),
    ]
    for one in results["exits"]:
        assert "accuracy" in one["metrics"]
        logits = logits_of(place.out / one["folder"], place.texts[:9])
        assert logits.shape == (9, 2)
        assert one["encoder_parameters"] == results["student"]["encoder_parameters"] * one["layers"] / 3
    assert {"exit_1_hard_label", "exit_2_from_student"} <= results["training"]["final_terms"].keys()
    assert "joint" not in results["training"]
    timed = results["efficiency"]["latency"][0]["models"]
    assert timed.keys() == {"teacher", "student", "exit_1", "exit_2"}
    assert not [name for name in (place.out / "student").iterdir() if "exit" in name.name]
    assert "Exits: a student of each depth" in capsys.readouterr().out
    (run,) = read_runs([place.out])
    assert "Exits after 1, 2 layers trained together" in joint_sentences(run)[0]
    assert "exit after 2\xa0layers" in exits_figure(run).description
    baseline = json.loads((place.out / "variants" / "no_distillation-42" / "training.json").read_text())
    assert list(baseline["final_terms"]) == ["hard_label"], "labels only are a student alone"

    (place.out / "results.json").unlink()
    trained = []
    monkeypatch.setattr(stages.StudentRun, "train", lambda *_: trained.append(1))
    assert place.run(*told, "evaluation.baselines=[no_distillation]") == 0
    assert not trained
    assert place.results["exits"][0]["metrics"] == results["exits"][0]["metrics"]


REFUSED = {
    "too deep": (["student.exits=[1, 7]"], r"student.exits.after: expected numbers of blocks from 1 to 1"),
    "twice": (["student.exits=[1, 1]"], r"student.exits.after: expected each depth once"),
    "text": (["data.task=mlm", "data.text_columns=[text]", "student.exits=[1]"], r"student.exits: expected a task"),
    "no output": (
        ["objective.soft_target_kl=null", "objective.hard_label=null", "student.exits=[1]"],
        r"student.exits: expected a term on outputs",
    ),
    "compiled": (["training.torch_compile=true", "student.exits=[1]"], r"torch_compile: expected false with student"),
    "share": (["student.exits={after: [1], alpha: 2}"], r"student.exits.alpha: expected less than or equal to 1"),
    "unknown": (["student.exits={after: [1], alfa: 2}"], r"student.exits.alfa: unknown key; did you mean alpha\?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_is_refused_before_training(place, capsys, name):
    """Prevents an error in the middle of a run, and settings that are silently without effect."""
    overrides, message = REFUSED[name]
    assert place.run(*overrides) == 2
    error = one_line(capsys.readouterr().err)
    assert re.search(message, " ".join(error.split())), error
    assert not place.out.exists() or not any(place.out.glob("checkpoint-*"))
