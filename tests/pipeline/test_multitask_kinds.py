"""Runs of all kinds of task together: what is left of each, on the Hub and as a graph."""

import json

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertForMaskedLM,
    pipeline,
)

from distil_nlp.cli import main
from distil_nlp.results import schema_mismatches
from distil_nlp.teachers.frozen import FrozenTeacher
from tests.helpers import byte_pairs, squad, tiny
from tests.helpers.hub import reachable_hub
from tests.helpers.processes import forked_pair
from tests.helpers.ranking import queries
from tests.helpers.sentences import pairs, save_teacher
from tests.pipeline.test_multitask import Tasks
from tests.pipeline.test_tokens import NAMES, sentences

KINDS = {
    "topics": "classification",
    "entities": "tokens",
    "questions": "qa",
    "documents": "ranking",
    "vectors": "embedding",
    "texts": "mlm",
}
"""Name of a task → its kind."""
TASKS = tuple(KINDS)
NO_CLASSES = {"soft_target_kl": None, "hard_label": None}
LIVELY = {"initializer_range": 0.3}


class UnlikeTasks(Tasks):
    """A folder with the data of tasks of all kinds, whose heads and terms differ, and their teachers."""

    def __init__(self, folder):
        super().__init__(folder)
        self.model("topics", tiny.classifier(4, 3, **LIVELY))
        self.model("entities", named(tiny.tagger(4, 4, seed=1, **LIVELY)))
        self.model("questions", tiny.reader(4, seed=2, **LIVELY))
        self.model("documents", tiny.classifier(4, 1, seed=3, **LIVELY))
        save_teacher(folder / "teachers" / "vectors", seed=4, **LIVELY)
        self.model("texts", tiny.mlm_model(4, seed=5, **LIVELY))
        self.save("entities", sentences(), sentences(ending=["and"]))
        self.save("questions", *(squad.dataset(squad.questions(16, seed)) for seed in (0, 1)))
        self.save("documents", queries(8), queries(6, 8))
        self.save("vectors", pairs(), pairs(9).map(lambda row: {"sentence1": f"{row['sentence1']} and not"}))
        self.save("texts", *(Dataset.from_dict({"text": self.lines(end)}) for end in ("", "and not")))
        own = {
            "entities": {"text_columns": ["tokens"], "label_column": "tags", "max_length": 32},
            "questions": {"text_columns": ["question", "context"], "label_column": "answers", "max_length": 24,
                          "stride": 4},
            "documents": {"text_columns": ["query", "document"], "max_length": 32, "group_size": 2,
                          "objective": NO_CLASSES | {"margin_mse": {"weight": 1.0}}},
            "vectors": {"text_columns": ["sentence1", "sentence2"], "label_column": "score", "max_length": 32,
                        "objective": NO_CLASSES | {"embedding_cosine": {"weight": 1.0}}},
            "texts": {"text_columns": ["text"], "max_length": 16},
        }  # fmt: skip
        places = {
            name: {"path": str(folder / "data" / name), "task_name": name, "task": KINDS[name],
                   "teacher": {"name": str(folder / "teachers" / name)}}
            for name in own
        }  # fmt: skip
        self.recipe["data"] = [self.entry("topics"), *({**places[name], **own[name]} for name in own)]
        self.recipe["training"]["max_steps"] = 24

    def lines(self, end):
        return [f"{text} {end}" for text in self.texts]

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
    """A finished run of all tasks."""
    tasks = UnlikeTasks(tmp_path_factory.mktemp("tasks"))
    assert tasks.run() == 0
    return tasks


@pytest.mark.integration
def test_students_of_unlike_heads_share_an_encoder_and_load_plainly(finished):
    """Prevents an encoder that drifted apart, a head that is lost, and a folder that plain transformers cannot read."""
    from sentence_transformers import SentenceTransformer  # seconds

    folders = {name: str(finished.out / name / "student") for name in TASKS}
    words = pipeline("token-classification", folders["entities"], aggregation_strategy="first")
    assert words.model.config.id2label == dict(enumerate(NAMES))
    assert isinstance(words("the cat sees the dog ."), list)
    (answer,) = pipeline("text-classification", folders["topics"])("the cat sees the dog .")
    assert answer["label"] in {"LABEL_0", "LABEL_1", "LABEL_2", "0", "1", "2"}
    reader = AutoModelForQuestionAnswering.from_pretrained(folders["questions"])
    encoded = AutoTokenizer.from_pretrained(folders["questions"])("cat ?", "the cat sees the dog", return_tensors="pt")
    assert reader(**encoded).start_logits.isfinite().all()
    filled = pipeline("fill-mask", folders["texts"])
    assert filled("the [MASK] sees the dog .")[0]["score"] > 0
    head = filled.model
    assert head.cls.predictions.decoder.weight is head.bert.embeddings.word_embeddings.weight
    vectors = SentenceTransformer(folders["vectors"], device="cpu").encode(["the cat sees the dog ."])
    assert vectors.shape == (1, 32)
    classes = (AutoModelForTokenClassification, AutoModelForSequenceClassification, AutoModelForMaskedLM, AutoModel)
    models = [
        one.from_pretrained(folders[name])
        for one, name in zip(classes, ("entities", "documents", "texts", "vectors"), strict=True)
    ]
    for model in models:
        for name, value in model.base_model.named_parameters():
            if not name.startswith("pooler"):
                assert torch.equal(value, reader.bert.get_parameter(name)), name


@pytest.mark.integration
def test_each_is_scored_and_told_by_the_metrics_of_its_kind(finished):
    """Prevents tags and answers that are trained and not scored, and cards without their own snippet."""
    found = {name: finished.results(name) for name in TASKS}
    headlines = ["accuracy", "f1", "f1", "ndcg_at_10", "spearman_cosine", "accuracy"]
    assert [one["headline"] for one in found.values()] == headlines
    assert found["entities"]["student"]["metrics"].keys() == {"f1", "precision", "recall"}
    assert found["questions"]["student"]["metrics"].keys() == {"f1", "exact_match"}
    assert sum(one["training"]["steps"] for one in found.values()) == 24
    tags = (
        "text-classification", "token-classification", "question-answering", "text-classification",
        "sentence-similarity", "fill-mask",
    )  # fmt: skip
    for name, tag in zip(TASKS, tags, strict=True):
        assert f"pipeline_tag: {tag}" in (finished.out / name / "student" / "README.md").read_text()
        assert "Trained together with" in (finished.out / name / "report" / "report.md").read_text()
        assert (finished.out / name / "predictions.parquet").is_file() == (name != "texts")
    table = json.loads((finished.out / "tasks.json").read_text())
    assert [(one["name"], one["task"]) for one in table] == [*KINDS.items()]
    terms = {name for name, term in found["documents"]["recipe"]["objective"].items() if term}
    assert terms == {"margin_mse", "hidden_cosine"}


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
@pytest.mark.parametrize("name", ["topics", "vectors", "texts"])
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
    tasks.recipe["data"][-1]["teacher"]["cache"] = None  # of words, the cache would repeat the first epoch's masks
    assert tasks.run() == 0
    assert len([*(tmp_path / "caches").iterdir()]) >= len(TASKS) - 1
    for name in TASKS:
        assert_alike(tasks.out / name, finished.out / name)
    asked, signals = set(), FrozenTeacher.signals

    def noted(self, batch):
        asked.add(type(self.model))
        return signals(self, batch)

    monkeypatch.setattr(FrozenTeacher, "signals", noted)
    tasks.recipe["training"]["output_dir"] = str(tmp_path / "again")
    assert tasks.run() == 0
    assert asked == {BertForMaskedLM}


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


@pytest.mark.integration
def test_two_processes_train_all_kinds_as_one(finished):
    """Prevents a query whose documents are in two processes, and masks that differ."""
    recipe = finished.recipe | {"training": dict(finished.recipe["training"])}
    finished.recipe["training"] |= {"output_dir": str(finished.folder / "two"), "per_device_train_batch_size": 2}
    try:
        forked_pair("scripts/distill.py", finished.file())
    finally:
        finished.recipe = recipe
    for name in TASKS:
        assert_alike(finished.out / name, finished.folder / "two" / name)


def assert_alike(one, other):
    """Compare the students of two folders, without biases that no output depends on: Adam enlarges their rounding."""
    one, other = (load_file(folder / "student" / "model.safetensors") for folder in (one, other))
    assert one.keys() == other.keys()
    for name in (name for name in one if not name.endswith(("key.bias", "qa_outputs.bias"))):
        torch.testing.assert_close(other[name], one[name], atol=2e-5, rtol=1e-4)
