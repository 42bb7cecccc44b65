"""Whole runs of students that train together with further modules: what is left, scored and told; what is refused."""

import json
import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distil_nlp.cli import main
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.joint import candidates
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.reporting.joint import joint_sentences
from distil_nlp.reporting.plots.exits import exits_figure
from distil_nlp.results import read_runs
from tests.helpers.messages import one_line
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    return Place(tmp_path).prepare()


def logits_of(folder, texts):
    model, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        return model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits


def test_a_run_with_exits_leaves_a_plain_student_of_each_depth(place, monkeypatch, capsys):
    """Prevents exits that are not scored, timed, told or saved, and a student that still carries them."""
    told = ["student.num_layers=3", "student.exits=[1, 2]", "evaluation.efficiency=quick", "evaluation.seeds=2"]
    assert place.run(*told, "evaluation.baselines=[no_distillation]") == 0
    results = place.results
    assert [(one["layers"], one["folder"]) for one in results["exits"]] == [
        (1, "exits/1-layers"),
        (2, "exits/2-layers"),
    ]
    for one in results["exits"]:
        assert one["seeds"]["accuracy"]["seeds"] == [42, 43]
        assert one["seeds"]["accuracy"]["values"][0] == one["metrics"]["accuracy"]
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
    monkeypatch.setattr(StudentRun, "train", lambda *_: trained.append(1))
    assert place.run(*told, "evaluation.baselines=[no_distillation]") == 0
    assert not trained
    scores = [[(one["metrics"], one["seeds"]) for one in found["exits"]] for found in (place.results, results)]
    assert scores[0] == scores[1]
    (place.out / "variants" / "distilled-43" / "outputs_exit_1.npz").unlink()
    (place.out / "results.json").unlink()
    assert place.run(*told, "evaluation.baselines=[no_distillation]") != 0
    assert len(trained) == 1, "a seed without the outputs of an exit is trained again"


OUTPUTS_ALONE = ["objective.hidden_cosine=null", "objective.attention_kl=null"]


def test_a_run_with_peers_keeps_the_best(place, monkeypatch, capsys):
    """Prevents a student that is not the one that was chosen, and scores of peers that nobody sees."""
    found = iter((0.1, 0.9))
    monkeypatch.setattr(candidates, "_or_least", lambda value: next(found))
    told = [*OUTPUTS_ALONE, "student.peers=2", "training.eval_strategy=epoch"]
    assert place.run(*told) == 0
    results = place.results
    found = results["peers"]
    assert (found["exported"], found["chosen_by"], len(found["members"])) == (2, "accuracy", 2)
    assert results["student"]["metrics"] == found["members"][1]["metrics"]
    assert results["student"]["initialisation"]["teacher_layers"] == [0, 2]
    assert found["members"][0]["initialisation"]["teacher_layers"] == [1, 3]
    assert logits_of(place.out / "student", place.texts[:9]).shape == (9, 2)
    (run,) = read_runs([place.out])
    assert "Peer 2 of 2 was kept, the best on rows apart" in joint_sentences(run)[0]
    assert "peer 2, kept" in capsys.readouterr().out


def test_a_check_tells_what_trains_together(place, capsys):
    """Prevents a check that knows nothing of two thirds of the work."""
    command = place.command(*OUTPUTS_ALONE, "student.peers=2")
    assert main(["check", *command]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "peer_2_hard_label, weight 1" in printed
    assert "from_peers, weight 1" in printed


def test_peers_need_no_teacher(place):
    """Prevents mutual learning that asks for soft targets."""
    assert place.run(*OUTPUTS_ALONE, "objective.soft_target_kl=null", "student.peers=2", "training.max_steps=1") == 0
    assert place.results["peers"]["chosen_by"] == "first"


def test_a_run_with_branches_keeps_the_best_as_a_plain_student(place, monkeypatch):
    """Prevents a student with the blocks of another branch than the one that was chosen."""
    found = iter((0.1, 0.9, 0.2))
    monkeypatch.setattr(candidates, "_or_least", lambda value: next(found))
    told = [*OUTPUTS_ALONE, "student.branches=3", "training.eval_strategy=epoch", "student.num_layers=3"]
    assert place.run(*told) == 0
    results = place.results
    assert results["branches"]["exported"] == 2
    assert results["student"]["metrics"] == results["branches"]["members"][1]["metrics"]
    assert results["student"]["initialisation"]["teacher_layers"] == [0, 1, 2]
    assert logits_of(place.out / "student", place.texts[:9]).shape == (9, 2)
    assert {"all_hard_label", "branch_3_from_all"} <= results["training"]["final_terms"].keys()
    (run,) = read_runs([place.out])
    assert "3 branches of 1\xa0layer over shared ones" in joint_sentences(run)[0]


REFUSED = {
    "branches of a checkpoint": (
        [*OUTPUTS_ALONE, "student.branches=2", "student.name=x"],
        r"student.branches: expected a student that is made of the teacher's layers",
    ),
    "no trunk": (
        [*OUTPUTS_ALONE, "student.branches={models: 2, blocks: 2}"],
        r"branches.blocks: expected fewer than the student's 2",
    ),
    "peers and layers": (["student.peers=2"], r"student.peers: expected terms on outputs alone / got hidden_cosine"),
    "peers and mixup": (
        [*OUTPUTS_ALONE, "student.peers=2", "data.augmentation.mixup={}"],
        r"student.peers: expected no data.augmentation.mixup",
    ),
    "one peer": (["student.peers=1"], r"student.peers.models: expected greater than or equal to 2"),
    "two schemes": (["student.peers=2", "student.exits=[1]"], r"student: expected one of exits, peers.* got exits and"),
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


@pytest.mark.parametrize("scheme", ["student.exits=[1]", "student.peers=2", "student.branches=2"])
def test_a_whole_run_in_two_processes(tmp_path, scheme):
    """Prevents a choice that processes make differently, and models that two of them write at once."""
    one, two = Place(tmp_path / "one").prepare(), Place(tmp_path / "two").prepare()
    told = [*OUTPUTS_ALONE, scheme, "training.eval_strategy=epoch"]
    assert one.run(*told, "training.per_device_train_batch_size=4") == 0
    forked_pair("scripts/distill.py", *two.command(*told, "training.per_device_train_batch_size=2"))
    key = scheme.split(".")[1].split("=")[0]
    assert two.results["environment"]["processes"] == 2
    if key == "exits":
        assert two.results[key][0]["metrics"] == one.results[key][0]["metrics"]
    else:
        assert two.results[key] == one.results[key]
    for name, value in one.results["training"]["final_terms"].items():
        assert two.results["training"]["final_terms"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
