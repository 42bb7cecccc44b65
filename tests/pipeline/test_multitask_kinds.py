"""Runs of a classification, words with tags and questions together: what is left of each, on the Hub and as a graph."""

import json

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoTokenizer, pipeline

from distil_nlp.cli import main
from distil_nlp.results import schema_mismatches
from distil_nlp.teachers.source import FrozenTeacher
from tests.helpers import byte_pairs, squad, tiny
from tests.helpers.hub import reachable_hub
from tests.helpers.messages import one_line
from tests.pipeline.test_multitask import Tasks
from tests.pipeline.test_tokens import NAMES, sentences

TASKS = ("topics", "entities", "questions")
LIVELY = {"initializer_range": 0.3}


class UnlikeTasks(Tasks):
    """A folder with the data of three tasks whose heads read sequences, tokens and spans, and their teachers."""

    def __init__(self, folder):
        super().__init__(folder)
        self.model("topics", tiny.classifier(4, 3, **LIVELY))
        self.model("entities", named(tiny.tagger(4, 4, seed=1, **LIVELY)))
        self.model("questions", tiny.reader(4, seed=2, **LIVELY))
        self.save("entities", sentences(), sentences(ending=["and"]))
        self.save("questions", *(squad.dataset(squad.questions(16, seed)) for seed in (0, 1)))
        own = {
            "entities": {"task": "tokens", "text_columns": ["tokens"], "label_column": "tags", "max_length": 32},
            "questions": {"task": "qa", "text_columns": ["question", "context"], "label_column": "answers",
                          "max_length": 24, "stride": 4},
        }  # fmt: skip
        places = {
            name: {"path": str(folder / "data" / name), "task_name": name,
                   "teacher": {"name": str(folder / "teachers" / name)}}
            for name in own
        }  # fmt: skip
        self.recipe["data"] = [self.entry("topics"), *({**places[name], **own[name]} for name in own)]

    def save(self, name, train, scored):
        folder = self.folder / "data" / name
        folder.mkdir()
        for split, rows in (("train", train), ("validation", scored)):
            rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def named(model):
    model.config.id2label = dict(enumerate(NAMES))
    model.config.label2id = {name: i for i, name in enumerate(NAMES)}
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the three tasks."""
    tasks = UnlikeTasks(tmp_path_factory.mktemp("tasks"))
    assert tasks.run() == 0
    return tasks


@pytest.mark.integration
def test_students_of_unlike_heads_share_an_encoder_and_load_plainly(finished):
    """Prevents an encoder that drifted apart, a head that is lost, and a folder that plain transformers cannot read."""
    folders = {name: str(finished.out / name / "student") for name in TASKS}
    words = pipeline("token-classification", folders["entities"], aggregation_strategy="first")
    assert words.model.config.id2label == dict(enumerate(NAMES))
    assert isinstance(words("the cat sees the dog ."), list)
    (answer,) = pipeline("text-classification", folders["topics"])("the cat sees the dog .")
    assert answer["label"] in {"LABEL_0", "LABEL_1", "LABEL_2", "0", "1", "2"}
    reader = AutoModelForQuestionAnswering.from_pretrained(folders["questions"])
    encoded = AutoTokenizer.from_pretrained(folders["questions"])("cat ?", "the cat sees the dog", return_tensors="pt")
    assert reader(**encoded).start_logits.isfinite().all()
    tagger = AutoModelForTokenClassification.from_pretrained(folders["entities"])
    for name, value in tagger.bert.named_parameters():
        assert torch.equal(value, reader.bert.get_parameter(name)), name


@pytest.mark.integration
def test_each_is_scored_and_told_by_the_metrics_of_its_kind(finished):
    """Prevents tags and answers that are trained and not scored, and cards without their own snippet."""
    found = {name: finished.results(name) for name in TASKS}
    assert [one["headline"] for one in found.values()] == ["accuracy", "f1", "f1"]
    assert found["entities"]["student"]["metrics"].keys() == {"f1", "precision", "recall"}
    assert found["questions"]["student"]["metrics"].keys() == {"f1", "exact_match"}
    assert sum(one["training"]["steps"] for one in found.values()) == 12
    for name, tag in zip(TASKS, ("text-classification", "token-classification", "question-answering"), strict=True):
        assert f"pipeline_tag: {tag}" in (finished.out / name / "student" / "README.md").read_text()
        assert "Trained together with" in (finished.out / name / "report" / "report.md").read_text()
        assert (finished.out / name / "predictions.parquet").is_file()
    table = json.loads((finished.out / "tasks.json").read_text())
    assert [(one["name"], one["task"]) for one in table] == [
        ("topics", "classification"), ("entities", "tokens"), ("questions", "qa"),
    ]  # fmt: skip


@pytest.mark.integration
def test_each_goes_to_a_repository_of_its_own(finished, monkeypatch, capsys):
    """Prevents students of several tasks that overwrite each other on the Hub, or cards that name another one."""
    monkeypatch.setattr("distil_nlp.pipeline.publication.stop_verdict", lambda run: None)  # tiny students guess
    with reachable_hub(monkeypatch, me="hf_ofme") as hub:
        monkeypatch.setenv("HF_TOKEN", "hf_ofme")
        assert finished.run("hub.push=true", "hub.repo_id=me/many") == 0
        assert not [request for request in hub.unknown if "me/" in request]
        assert {*hub.repos} == {f"me/many-{name}" for name in TASKS}
        for name in TASKS:
            files = hub.repos[f"me/many-{name}"].files
            assert files["model.safetensors"] == (finished.out / name / "student" / "model.safetensors").read_bytes()
            assert f'"me/many-{name}"' in files["README.md"].decode()
            assert json.loads(files["results.json"])["recipe"]["multitask"]["task"] == name
        assert "me/many-topics/commit" in capsys.readouterr().out
        assert main(["push-to-hub", str(finished.out / "entities"), "--repo-id", "me/alone", "--yes"]) == 0
        assert "me/alone" in hub.repos


@pytest.mark.integration
@pytest.mark.parametrize("name", TASKS)
def test_each_is_exported(finished, name):
    """Prevents a student of several tasks that no graph is made of: its rows have fingerprints of all tasks."""
    assert main(["export", str(finished.out / name), "export.latency=off", "export.int8=off"]) == 0
    results = json.loads((finished.out / name / "results.json").read_text())
    assert schema_mismatches(results) == []
    models = results["export"]["models"]
    for metric, value in results["student"]["metrics"].items():
        assert models["onnx"]["metrics"][metric] == pytest.approx(value, rel=1e-4, abs=1e-6)


@pytest.mark.integration
def test_cached_teachers_teach_as_those_that_are_asked(finished, tmp_path, monkeypatch):
    """Prevents a task whose outputs are looked up in the cache of another, and teachers that are asked all the same."""
    tasks = UnlikeTasks(tmp_path)
    tasks.recipe["teacher"]["cache"] = {"folder": str(tmp_path / "caches"), "dtype": "float32"}
    assert tasks.run() == 0
    assert len([*(tmp_path / "caches").iterdir()]) >= len(TASKS)
    for name in TASKS:
        one, other = (folder / name / "student" for folder in (tasks.out, finished.out))
        weights = [AutoModelForTokenClassification.from_pretrained(place).bert.state_dict() for place in (one, other)]
        for key, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][key], atol=2e-5, rtol=1e-4)

    def forbidden(self, batch):
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(FrozenTeacher, "signals", forbidden)
    tasks.recipe["training"]["output_dir"] = str(tmp_path / "again")
    assert tasks.run() == 0


@pytest.mark.integration
def test_taggers_keep_their_own_way_with_spaces(tmp_path):
    """Prevents the tokenizer of the first task in the folder of a tagger, whose words begin with a space each."""
    tasks = UnlikeTasks(tmp_path)
    tasks.recipe["data"] = tasks.recipe["data"][:2]
    for name, model in {"topics": byte_pairs.classifier(4, 3), "entities": named(byte_pairs.tagger(4, 4))}.items():
        model.save_pretrained(tmp_path / "teachers" / name)
        byte_pairs.tokenizer().save_pretrained(tmp_path / "teachers" / name)
    assert tasks.run() == 0
    tokenizers = {name: AutoTokenizer.from_pretrained(tasks.out / name / "student") for name in TASKS[:2]}
    tokens = {name: own.tokenize("cat dog") for name, own in tokenizers.items()}
    assert tokens["topics"][0] == "cat"
    assert tokens["entities"][0] == "Ġcat"


def test_a_kind_that_cannot_share_an_encoder_is_named(tmp_path, capsys):
    """Prevents a list of kinds in a message that knows fewer than can be together."""
    tasks = UnlikeTasks(tmp_path)
    tasks.recipe["data"][1]["task"] = "ranking"
    assert tasks.run() == 2
    said = one_line(capsys.readouterr().err)
    assert "tokens, qa, or one of GLUE / got ranking" in said
