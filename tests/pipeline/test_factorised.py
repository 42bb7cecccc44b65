"""A whole run of a student with narrower embeddings: what is left, and what is told."""

import json

import pytest
from transformers import AutoModelForSequenceClassification, pipeline

from distil_nlp.pipeline import publication
from distil_nlp.reporting.pruning import pruning_sentences
from distil_nlp.results import read_runs
from tests.helpers import tiny
from tests.helpers.families import classifier_of
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    place = Place(tmp_path).prepare()
    place.teacher(classifier_of("Electra", vocab_size=len(tiny.VOCABULARY), embedding_size=32))
    return place


def test_a_run_with_narrower_embeddings(place):
    """Prevents a student that transformers cannot load again, or one whose narrower table nobody hears of."""
    assert place.run("student.embedding_size=8", "training.max_steps=2") == 0
    start = place.results["student"]["initialisation"]["embeddings"]
    assert start["size"] == 8
    assert 0 < start["variance"] < 1
    assert not place.results["student"]["initialisation"]["new"]
    student = AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    assert student.electra.embeddings.word_embeddings.weight.shape == (len(tiny.VOCABULARY), 8)
    assert pipeline("text-classification", str(place.out / "student"))("the cat")[0]["label"]
    (run,) = read_runs([place.out])
    assert "Its embeddings have 8 features and a projection to its width" in pruning_sentences(run)[0]
    assert "factorised from the teacher" in (place.out / "student" / "README.md").read_text()
    assert json.loads((place.out / "student" / "config.json").read_text())["embedding_size"] == 8


def test_a_family_without_a_projection_is_refused_before_training(place, capsys):
    place.prepare()
    assert place.run("student.embedding_size=8") == 2
    assert "student.embedding_size: expected a teacher of one of the families" in one_line(capsys.readouterr().err)
    assert not place.out.exists() or not any(place.out.glob("checkpoint-*"))
