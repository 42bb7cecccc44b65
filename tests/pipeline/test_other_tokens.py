"""Runs whose teacher and student have unlike tokenizers, through the command line, and what they refuse."""

import json
import re

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, pipeline

from distil_nlp.cli import check
from distil_nlp.models import load_tokenizer
from distil_nlp.pipeline import publication
from distil_nlp.results.predictions import read_predictions
from tests.helpers import byte_pairs, tiny
from tests.helpers.messages import one_line
from tests.helpers.two_tokenizers import NAMES, TwoTokenizers


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    return TwoTokenizers(tmp_path).prepare()


def test_helpers_read_the_texts_as_other_tokens():
    """Prevents tests of two tokenizers that read alike."""
    own, other = (one(tiny.SENTENCES[2])["input_ids"] for one in (tiny.tokenizer(), byte_pairs.tokenizer()))
    assert len(own) != len(other)


@pytest.mark.integration
def test_a_run_ends_with_results_report_and_card(tmp_path, capsys):
    """Prevents a run that trains across tokenizers and fails, or tells nothing of it, where it is scored and shown."""
    place = TwoTokenizers(tmp_path).prepare()
    cached = f"teacher.cache={{folder: {place.folder / 'caches'}}}"
    more = ("data.max_length=14", "evaluation.efficiency=quick", "evaluation.baselines=[no_distillation]")
    assert place.run(cached, "teacher.finetune={num_train_epochs: 2}", *more) == 0
    printed, results = " ".join(capsys.readouterr().out.split()), place.results
    tokenizers = [tiny.tokenizer(), byte_pairs.tokenizer()]
    cut = sum(any(len(one(text)["input_ids"]) > 14 for one in tokenizers) for text in place.texts)
    assert 0 < cut < 24
    block = results["tokenizers"]
    train = block["rows"]["train"]
    assert (train["rows"], train["cut"]) == (24, cut)
    assert 0 < train["aligned"] == train["tokens"]
    assert (block["student"], block["others"]) == (str(place.folder / "start"), [str(place.folder / "teacher")])
    assert f"All 24 training rows took part; {cut} (" in printed
    assert (
        results["fidelity"]["cka_not_measured"] == "teacher and student read other tokens, which have no common states"
    )
    assert 0 <= results["fidelity"]["agreement"] <= 1
    assert {one["lengths"] for one in results["efficiency"]["latency"]} == {"data"}
    report, card = (place.out / path for path in ("report/report.md", "student/README.md"))
    for text in (report.read_text(), card.read_text()):
        assert "The student has the tokenizer of start; teacher reads its own tokens of the same texts." in text
        assert "took part" in text
    assert "distilled from `teacher`" in card.read_text()
    assert "started from `start`" in card.read_text()
    assert len(read_predictions(place.out)) == 9
    student = pipeline("text-classification", model=str(place.out / "student"), device="cpu")
    assert student(place.texts[0])[0]["label"] in ("no", "yes")
    assert load_tokenizer(str(place.out / "student")).get_vocab() == tiny.tokenizer().get_vocab()
    tuned = next((place.folder / "teachers").glob("teacher-*/model"))
    assert AutoTokenizer.from_pretrained(tuned).get_vocab() == byte_pairs.tokenizer().get_vocab()


def test_the_teacher_is_scored_on_its_own_tokens(place):
    """Prevents a teacher that is scored, checked and compared on ids of another vocabulary."""
    assert place.run() == 0
    teacher = byte_pairs.classifier(4, **NAMES)
    for row in read_predictions(place.out).to_pylist():
        logits = teacher(**byte_pairs.tokenizer()(row["text"], return_tensors="pt")).logits[0]
        assert row["teacher"] == ("no", "yes")[int(logits.argmax())]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.attention_kl={weight: 1.0}"], "attention_kl / why: .* / fix: leave it out; these work: soft_"),
        (["data.augmentation.cutoff={}"], "data.augmentation.cutoff: expected rows as they are"),
        (["data.augmentation.mixup={}"], "data.augmentation.mixup: expected rows as they are"),
        (["student.generations=2", "student.ema=null"], "student.generations: expected a teacher that teaches alone"),
        (["teacher.self=pretrained"], "teacher.self: expected a teacher that teaches alone"),
    ],
)
def test_what_needs_common_tokens_is_refused(place, capsys, overrides, message):
    """Prevents a teacher that is fine-tuned for hours before a term finds that tokens are not the same."""
    assert place.run("teacher.finetune={}", *overrides) == 2
    error = one_line(capsys.readouterr().err)
    assert re.search(message.replace(" / why: ", " / ").replace(" / fix: ", " / "), error), error
    assert not (place.folder / "teachers").exists()


def words(place):
    """Save models of words, and return the overrides of a run with them."""
    byte_pairs.mlm_model(4).save_pretrained(place.folder / "teacher")
    tiny.mlm_model(2).save_pretrained(place.folder / "start")
    texts = [f"{text} {word} {i}" for i in range(20) for word in ("the", "zebra") for text in tiny.SENTENCES]
    (place.folder / "text.txt").write_text("\n".join(texts))
    data = [f"data.path={place.folder / 'text.txt'}", "data.task=mlm", "data.text_columns=null", "objective.pkd=null"]
    return [*data, "data.max_length=24", "objective.hidden_cosine={weight: 1.0}", "training.max_steps=2"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.masking={}", "data.masking.whole_words: expected true where teacher and student have vocabularies"),
        ("teacher.cache={}", "teacher.cache: expected null where"),
        ("objective.reverse_kl={weight: 1.0}", "got reverse_kl"),
    ],
)
def test_what_needs_one_vocabulary_is_refused(place, capsys, override, message):
    """Prevents words that are masked for one model alone, and distributions over words that one of them lacks."""
    assert place.run(*words(place), "data.masking.whole_words=true", override) == 2
    assert message in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_words_are_distilled_across_vocabularies(tmp_path, capsys):
    """Prevents a run of two vocabularies that fails, or tells nothing of skipped words, where it is scored."""
    place = TwoTokenizers(tmp_path).prepare()
    more = ("data.masking={whole_words: true}", "evaluation.efficiency=quick")
    assert place.run(*words(place), *more) == 0
    train = place.results["tokenizers"]["rows"]["train"]
    assert 0 < train["matched"] < train["words"] < train["tokens"]
    fidelity = place.results["fidelity"]
    assert 0 <= fidelity["agreement"] <= 1
    assert fidelity["kl"] > 0
    assert fidelity["tokens"] > 0
    assert "that are one token in both" in (place.out / "report" / "report.md").read_text()
    assert place.results["retention"] is None  # words of other vocabularies are easier, or harder
    assert "there is no retention" in (place.out / "report" / "report.md").read_text()
    shares = f"({train['matched']:,} of {train['words']:,}) of the words that it is to predict"
    assert shares in " ".join(capsys.readouterr().out.split())
    assert shares in (place.out / "report" / "report.md").read_text()


def test_a_tokenizer_that_truncates_on_the_left_is_refused(place, capsys):
    """Prevents a student that reads the end of a text of which its teacher reads the beginning."""
    tiny.tokenizer(truncation_side="left").save_pretrained(place.folder / "start")
    assert place.run() == 2
    assert "fast tokenizers that truncate on the right" in one_line(capsys.readouterr().err)


def test_a_check_tells_of_the_tokens(place, capsys):
    """Prevents a dry run that times, or fails on, rows that are read by one tokenizer alone."""
    assert check(place.command("data.max_length=14")) == 0
    assert "All 24 training rows took part" in " ".join(capsys.readouterr().out.split())


@pytest.mark.integration
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_kinds_of_label_go_the_same_way(place, task):
    """Prevents labels that are padded, or averaged, with the tokens of one of the models."""
    count = len(place.texts)
    sets, numbers = [["no", "yes"][: i % 3] for i in range(count)], [i / count for i in range(count)]
    labels = numbers if task == "regression" else sets
    rows = Dataset.from_dict({"text": place.texts, "label": labels})
    place.save({"train": rows, "test": rows.select(range(9))})
    if task == "regression":
        byte_pairs.classifier(4, 1).save_pretrained(place.folder / "teacher")
        tiny.classifier(2, 1, seed=1).save_pretrained(place.folder / "start")
    else:
        byte_pairs.classifier(4, problem_type="multi_label_classification", **NAMES).save_pretrained(
            place.folder / "teacher"
        )
    assert place.run(f"data.task={task}") == 0
    assert place.results["tokenizers"]["rows"]["train"]["cut"] == 0


@pytest.mark.integration
def test_an_ensemble_of_two_tokenizers_teaches(place):
    """Prevents members that are scored, mixed or measured on each other's tokens; the student is made of the first."""
    tiny.classifier(4, **NAMES).save_pretrained(place.folder / "second")
    tiny.tokenizer().save_pretrained(place.folder / "second")
    ensemble = f"teacher.ensemble=[{place.folder / 'teacher'}]"
    made = [f"teacher.name={place.folder / 'second'}", "student.name=null", "evaluation.efficiency=quick"]
    assert place.run(ensemble, *made, "objective.hidden_cosine={weight: 1.0}") == 0
    results = place.results
    assert results["tokenizers"]["student"] == str(place.folder / "second")
    assert [one["name"] for one in results["teacher"]["members"]] == [
        str(place.folder / "second"),
        str(place.folder / "teacher"),
    ]
    assert "cka" in results["fidelity"]


@pytest.mark.integration
def test_an_interrupted_run_goes_on(place):
    """Prevents rows of two tokenizers that are others after a restart."""
    assert place.run() == 0
    whole = (place.out / "student" / "model.safetensors").read_bytes()
    for path in ("results.json", "training.json"):
        (place.out / path).unlink()
    for path in (place.out / "student").iterdir():
        path.unlink()
    assert place.run() == 0
    assert (place.out / "student" / "model.safetensors").read_bytes() == whole
    assert json.loads((place.out / "training.json").read_text())["steps"] == 6
