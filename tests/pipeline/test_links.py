"""Students that teach students: assistants and generations, each a run of its own."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file
from scipy.special import softmax

from distil_nlp.cli import main
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.kept_outputs import load_outputs
from distil_nlp.pipeline.links import chain_of
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.recipe import load_recipe
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.guides import Guides
from distil_nlp.teachers.mixing import Mixing
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

ASSISTED = ("teacher.assistants=[{num_layers: 3}]", "student.num_layers=1", "training.max_steps=3")

LABELS_ONLY = [f"objective.{name}.weight=0" for name in ("soft_target_kl", "hidden_cosine", "attention_kl")]


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Reports take seconds."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def links_of(place, *overrides):
    file, *given = place.command(*overrides)
    return chain_of(load_recipe(file, given))


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_an_assistant_is_a_run_of_its_own(place, capsys):
    """Prevents assistants that nobody can look at, that are trained again, or that do not teach."""
    assert place.run(*ASSISTED) == 0
    said = capsys.readouterr().out
    assert "assistant of 3 layers: trained first, as a run of its own in" in said
    schemes = place.results["schemes"]
    assert [one["key"] for one in schemes["used"]] == ["teacher.assistants"]
    (link,) = links_of(place, *ASSISTED)
    (told,) = schemes["links"]
    assert told["folder"] == str(link.folder)
    found = json.loads((link.folder / "results.json").read_text())
    assert found["student"]["initialisation"]["teacher_layers"] == [0, 1, 3]
    assert told["metrics"] == found["student"]["metrics"]
    total = schemes["compute"]["all_stages"]
    assert total["steps"] == 6
    for name in ("tokens", "tokens_forward", "tokens_backward", "flops"):
        assert total[name] == found["training"][name] + place.results["training"][name]
    assert total["tokens_forward"] == 2 * total["tokens"]  # student and teacher
    assert place.run(*ASSISTED, "run.overwrite=true", "training.learning_rate=1e-4") == 0
    assert "from an earlier run" not in capsys.readouterr().out  # another rate is another assistant
    assert place.run(*ASSISTED, "run.overwrite=true", "student.layers=[0]") == 0
    assert "from an earlier run" in capsys.readouterr().out


def test_the_assistant_teaches(place):
    """Prevents a student that learns from the teacher in spite of its assistant."""
    place.run("training.max_steps=1", "student.num_layers=1")
    start = f"student.name={(place.out / 'student').rename(place.folder / 'start')}"
    given = ("teacher.assistants=[{num_layers: 3}]", "training.max_steps=3", start)
    assert place.run(*given, "run.overwrite=true") == 0
    guided = weights(place.out / "student")
    (link,) = links_of(place, *given)
    told = (f"teacher.name={link.student}", "training.max_steps=3", start)
    assert place.run(*told, "run.overwrite=true") == 0
    direct = weights(place.out / "student")
    assert all(guided[name].equal(direct[name]) for name in guided)


def test_the_teacher_and_its_assistants_guide_together(place):
    """Prevents a dense guide of other teachers, and one that is not the mean of their distributions."""
    place.run("training.max_steps=1", "student.num_layers=1")
    start = f"student.name={(place.out / 'student').rename(place.folder / 'start')}"
    terms = ("objective.hidden_cosine.weight=0", "objective.attention_kl.weight=0", "training.max_steps=3", start)
    given = ("teacher.assistants=[{num_layers: 3}]", "teacher.guided=dense", *terms)
    assert place.run(*given, "run.overwrite=true") == 0
    guided = weights(place.out / "student")
    (link,) = links_of(place, *given)
    members = (f"teacher.ensemble=[{place.folder / 'teacher'}]", "teacher.mix=probabilities")
    assert place.run(f"teacher.name={link.student}", *members, *terms, "run.overwrite=true") == 0
    direct = weights(place.out / "student")
    assert all(guided[name].equal(direct[name]) for name in guided)
    assert place.run(*given, "teacher.drop=0.5", "run.overwrite=true") == 0
    dropped = weights(place.out / "student")
    assert any(not guided[name].equal(dropped[name]) for name in guided)


def test_guides_are_left_out_by_seed_and_step():
    """Prevents a step without a teacher, draws that a resume repeats otherwise, and evaluations of half the guides."""
    mixing = Mixing((1.0, 1.0, 1.0), "probabilities")
    guides = Guides(Ensemble([tiny.classifier(2, seed=n) for n in range(3)], mixing), None, drop=0.5, seed=7)
    drawn = [guides.weights_at(step) for step in range(400)]
    assert drawn == [guides.weights_at(step) for step in range(400)]
    assert all(sum(one) >= 1 for one in drawn)
    assert np.mean(drawn) == pytest.approx(0.5 + 0.5**3 / 3, abs=0.05)
    assert drawn != [Guides(guides.model, None, 0.5, seed=8).weights_at(step) for step in range(400)]


def test_a_student_made_of_its_assistant(place, monkeypatch):
    """Prevents a student that starts from the teacher in spite of `start`, and a plain baseline that does not."""
    given = ("teacher.assistants=[{num_layers: 3}]", "teacher.start=assistant", "training.max_steps=3")
    starts = {}
    build = StudentRun.build

    def built(run, teacher, score=None):
        student, report = build(run, teacher, score)
        starts[run.folder] = {name: value.clone() for name, value in student.state_dict().items()}
        return student, report

    monkeypatch.setattr(StudentRun, "build", built)
    assert place.run(*given, "student.num_layers=1", "evaluation.baselines=[plain]") == 0
    (link,) = links_of(place, *given)
    assistant = weights(link.folder / "student")
    first, name = starts[place.out], "bert.encoder.layer.0.attention.self.query.weight"
    assert first[name].equal(assistant[name.replace("layer.0", "layer.2")])
    teacher = weights(place.folder / "teacher")
    (plain,) = (folder for folder in starts if "plain" in str(folder))
    assert starts[plain][name].equal(teacher[name.replace("layer.0", "layer.3")])
    assert (
        "started as layers 2 (counted from 0) of the last assistant."
        in (place.out / "student" / "README.md").read_text()
    )
    # the first assistant is the same run, whatever its student is made of
    assert links_of(place, given[0], given[2])[0].folder == link.folder


def test_an_interrupted_chain_carries_on(place, monkeypatch, capsys):
    """Prevents links that are trained again, and another student, after a stop in the middle."""
    assert place.run(*ASSISTED) == 0
    whole = weights(place.out / "student")
    place.out.rename(place.folder / "whole")
    train = StudentRun.train

    def stopped(run, *args, **kwargs):
        if run.folder == place.out:
            raise KeyboardInterrupt
        return train(run, *args, **kwargs)

    links_of(place, *ASSISTED)[0].folder.rename(place.folder / "link")
    with monkeypatch.context() as patch:
        patch.setattr(StudentRun, "train", stopped)
        assert place.run(*ASSISTED) == 130
    capsys.readouterr()
    assert place.run(*ASSISTED) == 0
    assert "assistant of 3 layers: from an earlier run" in capsys.readouterr().out
    again = weights(place.out / "student")
    assert all(whole[name].equal(again[name]) for name in whole)


def test_each_generation_teaches_the_next(place):
    """Prevents generations of other shapes or seeds, and a mean of theirs that is not one of probabilities."""
    given = ("student.generations=3", "training.max_steps=2")
    assert place.run(*given) == 0
    links = links_of(place, *given)
    assert [link.title for link in links] == ["generation 1", "generation 2"]
    assert [link["folder"] for link in place.results["schemes"]["links"]] == [str(link.folder) for link in links]
    outputs = [load_outputs(folder / "outputs.npz")["test"] for folder in (*(x.folder for x in links), place.out)]
    mean = np.mean([softmax(one.predictions.astype(np.float64), -1) for one in outputs], 0)
    accuracy = float((mean.argmax(-1) == outputs[0].labels).mean())
    assert place.results["schemes"]["mean_of_generations"]["accuracy"] == pytest.approx(accuracy)
    first, second = (weights(link.folder / "student") for link in links)
    assert any(not first[name].equal(second[name]) for name in first)


def test_a_student_on_labels_teaches_itself_again(place):
    """Prevents a self-teacher that saw a teacher, or is of another shape or start."""
    given = ("teacher.self=pretrained", "training.max_steps=2", "objective.hidden_cosine.layers=last")
    assert place.run(*given) == 0
    (link,) = links_of(place, *given)
    found = json.loads((link.folder / "results.json").read_text())
    assert found["training"]["final_terms"].keys() == {"hard_label"}
    assert found["student"]["initialisation"] == place.results["student"]["initialisation"]
    assert found["recipe"]["student"] == place.results["recipe"]["student"]
    assert "trained on labels only" in place.results["schemes"]["used"][0]["sentence"]


def test_plain_distillation_at_equal_compute(place):
    """Prevents a scheme that looks good because it took more than what it is compared with."""
    assert place.run(*ASSISTED, "evaluation.baselines=[equal_compute]") == 0
    compute, baselines = place.results["schemes"]["compute"], place.results["baselines"]
    assert {"plain", "equal_compute"} <= baselines.keys()
    assert compute["plain"]["steps"] == 3
    more = compute["all_stages"]["flops"] / compute["plain"]["flops"]
    assert more > 2  # three layers and one, against one
    assert compute["equal_compute"]["steps"] == round(3 * more)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.baselines=[plain]"], "evaluation.baselines: expected plain for a recipe with a training scheme"),
        ([*ASSISTED, "student.generations=2"], "student.generations: expected 1 with teacher.assistants"),
        ([*ASSISTED, "teacher.finetune={}", "teacher.reseed=true"], "teacher.reseed: expected false with teacher.assi"),
        (["student.generations=2", *LABELS_ONLY], "objective: expected a term that learns from a tea"),
        (["teacher.guided=dense"], "teacher.guided too"),
        ([*ASSISTED, "teacher.drop=0.5"], "teacher.drop too"),
        (["teacher.start=assistant"], "teacher.start too"),
        ([*ASSISTED, "teacher.start=assistant", "student.layers=[3]"], "student.layers: expected numbers from 0 to 2"),
        ([*ASSISTED, "objective.hidden_cosine.layers=[[3,0]]"], "objective.hidden_cosine.layers: expected "),
        (["teacher.assistants=[{num_layers: 9}]"], "expected stack or interpolate for a student of 9 layers"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told_before_anything_is_trained(place, capsys, overrides, message):
    """Prevents hours of training an assistant before a mistake is told."""
    assert place.run(*overrides) == 2
    assert message in one_line(capsys.readouterr().err)
    assert not place.out.exists()
    assert not (place.folder / "teachers").exists()


def test_a_check_tells_what_comes_first(place, capsys):
    """Prevents an estimate of time that leaves out the longest parts without a word."""
    command = place.command(*ASSISTED, "evaluation.baselines=[equal_compute]")
    assert main(["check", *command]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "first assistant of 3 layers, a run of its own in " in said
    assert "time assistant of 3 layers: distilling: " in said
    assert "time equal compute: " in said


def test_an_altered_link_is_not_taught_by(place, capsys):
    """Prevents a student that learns from weights that nobody scored."""
    assert place.run(*ASSISTED) == 0
    (link,) = links_of(place, *ASSISTED)
    file = link.folder / "student" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    assert place.run(*ASSISTED, "run.overwrite=true", "student.layers=[0]") == 2
    assert "as its run saved it" in one_line(capsys.readouterr().err)
