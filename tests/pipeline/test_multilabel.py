"""Whole runs with several labels a row: thresholds, report, card, and what plain transformers makes of the student."""

import json

import pytest
from datasets import Dataset
from transformers import AutoConfig, pipeline

from distil_nlp.cli import main
from distil_nlp.results.predictions import read_predictions
from tests.helpers import ROOT, tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

NAMES = ["animal", "place", "thing"]
WORDS = {"animal": "cat dog bird fish", "place": "house river", "thing": "tree stone"}


def rows(count=48):
    """Texts, and which kinds of things they name."""
    words = [word for kinds in WORDS.values() for word in kinds.split()]
    texts = [f"the {words[i % 8]} sees a {words[(i // 8 + i) % 8]} {'and ' * (i // 8)}" for i in range(count)]
    labels = [[name for name in NAMES if set(WORDS[name].split()) & set(text.split())] for text in texts]
    return {"text": texts, "labels": labels}


def teacher(**changes):
    model = tiny.classifier(4, 3, problem_type="multi_label_classification", **changes)
    model.config.id2label = dict(enumerate(NAMES))
    model.config.label2id = {name: i for i, name in enumerate(NAMES)}
    return model


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with a teacher of three labels and a file of rows."""
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path)
    place.teacher(teacher())
    Dataset.from_dict(rows()).to_json("rows.jsonl")
    return place


def command(place, name="distill", *more):
    return [
        name, str(ROOT / "recipes/multilabel.yaml"), f"teacher.name={place.folder / 'teacher'}", "data.path=rows.jsonl",
        "data.max_length=32", "training.use_cpu=true", "training.max_steps=3", "run.accept_weak_teacher=true",
        "training.per_device_train_batch_size=8", f"training.output_dir={place.out}", "evaluation.efficiency=off",
        "training.disable_tqdm=true", "evaluation.baselines=[]", *more,
    ]  # fmt: skip


@pytest.mark.with_pictures
def test_a_run_says_which_labels_a_text_has(place, capsys):
    """Prevents a threshold that nobody can find, and a student that transformers takes for one of single classes."""
    assert main(command(place, "distill", "evaluation.baselines=[no_distillation]", "evaluation.seeds=2")) == 0
    said = capsys.readouterr().out
    results = place.results
    assert results["headline"] == "f1_micro"
    assert results["labels"] == NAMES
    assert set(results["student"]["metrics"]) == {"f1_micro", "f1_macro", "mean_average_precision"}
    assert "macro F1" in said or "micro F1" in said
    assert results["thresholds"]["rows"] > 0
    assert set(results["thresholds"]["models"]) == {"teacher", "student", "copied_only", "no_distillation"}
    assert results["recipe"]["teacher"]["finetune"] is None  # it is trained already
    threshold = results["thresholds"]["models"]["student"]
    config = AutoConfig.from_pretrained(place.out / "student")
    assert (config.threshold, config.problem_type) == (threshold, "multi_label_classification")
    assert len(results["breakdown"]["classes"]) == 3
    assert {"agreement", "kl"} <= set(results["fidelity"])
    texts = {name: (place.out / name).read_text() for name in ("report/report.md", "student/README.md")}
    for text in texts.values():
        assert "A text has the labels whose probability is " in text
        assert "most frequent labels" in text
        assert "same set of labels" in text
    assert "top_k=None" in texts["student/README.md"]
    assert "KL(teacher ‖ student) of each label’s softened probability" in texts["student/README.md"]
    assert "binary cross-entropy" in texts["student/README.md"]
    kept = read_predictions(place.out).to_pylist()
    found = pipeline("text-classification", str(place.out / "student"))([row["text"] for row in kept], top_k=None)
    for row, scores in zip(kept, found, strict=True):
        assert {one["label"] for one in scores if one["score"] >= threshold} == set(row["student"])
        assert set(row["label"]) <= set(NAMES)
    history = results["training"]["history"]
    assert any("eval_f1_micro" in entry for entry in history)


def test_without_rows_to_choose_by_the_threshold_is_a_half(place):
    """Prevents a threshold that is chosen by rows that scores are of."""
    assert main(command(place, "distill", "training.eval_strategy=no", "training.save_strategy=no")) == 0
    assert place.results["thresholds"] == {
        "rows": None, "models": dict.fromkeys(("teacher", "copied_only", "student"), 0.5)
    }  # fmt: skip
    assert "no rows chose a threshold" in (place.out / "report/report.md").read_text()


@pytest.mark.integration
def test_a_teacher_of_single_classes_is_fine_tuned_on_several(place, capsys):
    """Prevents a softmax teacher that is taken for one of independent labels, by the recipe for untrained ones."""
    model = teacher()
    model.config.problem_type = "single_label_classification"
    place.teacher(model)
    assert main(command(place, "distill", "teacher.finetune.max_steps=2")) == 0
    assert "becomes multi_label_classification, for which it is trained here" in capsys.readouterr().out
    assert place.results["recipe"]["teacher"]["finetune"]["max_steps"] == 2
    assert main(command(place, "distill", "teacher.finetune=null", "run.overwrite=true")) == 2
    said = one_line(capsys.readouterr().err)
    assert "problem_type single_label_classification in" in said
    assert "or set data.task=classification if the data is of that kind" in said


def test_a_teacher_that_does_not_say_what_its_outputs_are_is_named(place, capsys):
    """Prevents sigmoids of a softmax teacher without a word."""
    model = teacher()
    model.config.problem_type = None
    place.teacher(model)
    assert main(command(place, "check")) == 0
    said = capsys.readouterr()
    assert "config.json has no problem_type; each output is the probability" in " ".join((said.out + said.err).split())


def test_a_check_counts_the_rows_of_each_label(place, capsys):
    """Prevents counts of rows whose labels are a list."""
    assert main(command(place, "check")) == 0
    labels = rows()["labels"]
    said = " ".join(capsys.readouterr().out.split())
    assert "classes 0 animal (" in said
    assert sum(len(one) for one in labels) > len(labels)


SOFTMAX = ("soft_target_cross_entropy", "reverse_kl", "decoupled_kd", "label_smoothing", "dist_intra")


@pytest.mark.parametrize("term", SOFTMAX)
def test_terms_of_a_softmax_are_refused_before_anything_is_trained(place, capsys, term):
    """Prevents a distribution over labels that do not exclude each other."""
    assert main(command(place, "distill", f"objective.{term}={{}}")) == 2
    said = one_line(capsys.readouterr().err)
    assert f"objective.{term}: expected " in said
    assert "outputs here are a probability of each label by itself" in said
    assert not place.out.exists()


REFUSED = {
    "label columns of another kind": (["data.task=classification", "data.label_columns=[a,b]"], "data.label_columns"),
    "both ways": (["data.label_column=tags", "data.label_columns=[a,b]"], "data.label_column too"),
    "a separator of columns": (["data.label_separator='|'", "data.label_columns=[a,b]"], "data.label_separator too"),
    "one column of several": (["data.label_columns=[a]"], "data.label_columns: "),
    "a confidence": (["objective.soft_target_kl.by_confidence=true"], "false for multi-label classification"),
    "mixed probabilities": (
        ["teacher.ensemble=[TEACHER]", "teacher.mix=probabilities"],
        "mix=logits and weighting=fixed for multi-label classification",
    ),
    "the last epoch": (
        ["teacher.self=last_epoch", "objective.hidden_cosine=null", "objective.attention_kl=null"],
        "expected a class or a number",
    ),
    "another name": (["data.task=multi_label_classification"], "did you mean multilabel?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_said(place, capsys, case):
    """Prevents keys that are not read, and methods of one distribution over classes."""
    overrides, words = REFUSED[case]
    overrides = [one.replace("TEACHER", str(place.folder / "teacher")) for one in overrides]
    assert main(command(place, "distill", *overrides)) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not place.out.exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    "scheme",
    [
        "student.exits={after: [1]}", "student.peers={models: 2}", "student.branches={models: 2}",
        "student.generations=2", "teacher.assistants=[{num_layers: 3}]", "teacher.ensemble=[TEACHER]",
        "student.replacing={}", "objective.r_drop={}", "objective.input_gradient={}",
        "teacher.cache={}", "data.augmentation.mixup={}",
        "teacher.self=ema",
    ],
)  # fmt: skip
def test_training_schemes_take_several_labels(place, scheme):
    """Prevents a scheme that knows classes and numbers alone."""
    model = teacher(hidden_dropout_prob=0.1)
    place.teacher(model)
    scheme = scheme.replace("TEACHER", str(place.folder / "teacher"))
    alone = ["objective.hidden_cosine=null", "objective.attention_kl=null", f"teacher.folder={place.folder / 'links'}"]
    assert main(command(place, "distill", scheme, *alone)) == 0
    assert json.loads((place.out / "results.json").read_text())["student"]["metrics"]["f1_micro"] >= 0
    assert place.results
