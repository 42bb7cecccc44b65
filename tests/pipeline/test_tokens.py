"""Whole runs on words with tags: entities and parts of speech, from data to a model that plain transformers loads."""

import json
import re

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import AutoModelForTokenClassification, pipeline

from distil_nlp.results.predictions import read_predictions
from tests.helpers import tiny
from tests.helpers.runs import Place

NAMES = ["O", "B-animal", "I-animal", "B-place"]
ENTITIES = {"cat": 1, "dog": 1, "bird": 1, "fish": 1, "house": 3, "tree": 3, "river": 3}
DATA = ("data.task=tokens", "data.text_columns=[tokens]", "data.label_column=tags")
FINETUNE = "teacher.finetune={max_steps: 2, per_device_train_batch_size: 4}"


def sentences(names=NAMES, ending=()):
    """Words with tags; an animal behind another is inside its entity."""
    words = [[*text.split(), *ending, more] for text in tiny.SENTENCES for more in ("cat", "tree", "not", "old")]
    tags = [[ENTITIES.get(word, 0) for word in row] for row in words]
    return Dataset.from_dict(
        {"tokens": words, "tags": tags},
        features=Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))}),
    )


@pytest.fixture
def place(tmp_path):
    """A teacher whose tags are in another order than the data's, and rows."""
    place = Place(tmp_path)
    model, order = tiny.tagger(4, 4, initializer_range=0.2), [2, 0, 3, 1]
    model.config.id2label = {place: NAMES[i] for place, i in enumerate(order)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    place.teacher(model)
    rows = sentences()
    place.save({"train": rows, "validation": sentences(ending=["and"]), "test": sentences(ending=["or", "under"])})
    return place


def test_entities_go_through_a_whole_run(place, capsys):
    """Prevents a kind that trains and cannot be read: scores, intervals, types, report, card, plain pipeline."""
    every_epoch = ("training.eval_strategy=epoch", "training.save_strategy=epoch", "training.num_train_epochs=2")
    best = ("training.load_best_model_at_end=true", "training.metric_for_best_model=f1")
    cached = (f"teacher.cache.folder={place.folder / 'cache'}",)
    assert place.run(*DATA, *every_epoch, *best, *cached, "evaluation.baselines=[no_distillation]") == 0
    out, results = capsys.readouterr().out, place.results
    assert "classes are put in the data's order, by their names" in out
    assert (results["task"], results["headline"], results["labels"]) == ("tokens", "f1", NAMES)
    assert results["teacher"]["metrics"].keys() == results["student"]["metrics"].keys() == {"f1", "precision", "recall"}
    assert results["baselines"]["majority"]["metrics"]["f1"] == 1.0  # each word has one tag in this data
    assert results["baselines"]["no_distillation"]["gain"]["metric"] == "f1"
    assert [one["name"] for one in results["breakdown"]["classes"]] == ["animal", "place"]
    check_rows(place, results)
    assert results["calibration"].keys() >= {"teacher", "student", "no_distillation"}
    assert "the words that are read and have a tag" in (place.out / "report/report.md").read_text()
    assert results["fidelity"].keys() >= {"tokens", "agreement", "kl", "entity_f1"}
    logged = [entry["eval_f1"] for entry in results["training"]["history"] if "eval_f1" in entry]
    assert len(logged) == 2
    report, card = ((place.out / path).read_text() for path in ("report/report.md", "student/README.md"))
    assert "entity F1" in report
    assert "commonest tag of each word" in report
    assert "| animal |" in report
    assert "words. KL(teacher" in report
    assert 'pipeline("token-classification"' in card
    assert 'model(text, aggregation_strategy="first"))' in card
    assert (
        "| `soft_target_kl` | KL(teacher ‖ student) of the softened outputs, times T² | 1 | 2 |  | labelled |" in card
    )
    student = AutoModelForTokenClassification.from_pretrained(place.out / "student").eval()
    assert [student.config.id2label[i] for i in range(4)] == NAMES
    check_pipeline(place.out / "student", student)


def check_rows(place, results):
    """Each scored sentence is kept with its words, tags and predicted tags, and counted by its length."""
    rows = read_predictions(place.out).to_pylist()
    own = sentences(ending=["or", "under"])
    assert [row["text"] for row in rows] == own["tokens"]
    assert [row["label"] for row in rows] == [[NAMES[tag] for tag in tags] for tags in own["tags"]]
    assert all(row["student_error"] == (row["student"] != row["label"]) for row in rows)
    assert not any(name.endswith("probability") for name in rows[0])
    wrong = sum(part["student"] * part["rows"] for part in results["breakdown"]["lengths"])
    assert wrong == pytest.approx(sum(row["student_error"] for row in rows))
    assert sum(results["breakdown"]["changes"].values()) == len(rows)


def test_a_metric_that_the_tags_do_not_have_is_refused_before_training(place, capsys):
    """Prevents a KeyError after the first epoch, where nobody knew before the data was read that it has no entities."""
    names = ["X", "NOUN", "VERB", "PLACE"]
    place.teacher(tiny.mlm_model(4))
    place.save({"train": sentences(names), "test": sentences(names, ["or"])})
    assert place.run(*DATA, "training.eval_strategy=epoch", "training.metric_for_best_model=f1") != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "training.metric_for_best_model expected accuracy or f1_macro, as the tags make no entities got f1" in told
    chosen = ("training.eval_strategy=epoch", "training.metric_for_best_model=accuracy")
    assert place.run(*DATA[1:], "data.task=tags", "training.save_strategy=no", *chosen, FINETUNE) == 0


def test_one_file_of_json_lines_is_split(place):
    """Prevents lists in files that only Parquet has, and rows that are scored and trained on."""
    file = place.folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in sentences().to_list()))
    assert place.run(*DATA, f"data.path={file}", f"data.label_names=[{','.join(NAMES)}]", "training.max_steps=2") == 0
    assert (place.results["labels"], place.results["rows"]["held_out"]) == (NAMES, "test")
    assert place.results["task"] == "tokens"


def check_pipeline(folder, student):
    """The pipeline gives the tags of the model, and groups of them."""
    text = "the cat walked under the tree"
    tokenizer = tiny.tokenizer()
    with torch.no_grad():
        ids = student(**tokenizer(text, return_tensors="pt")).logits[0].argmax(-1)[1:-1].tolist()
    words = tokenizer.tokenize(text)
    single = pipeline("token-classification", model=str(folder), ignore_labels=[])
    assert [(one["word"], one["entity"]) for one in single(text)] == [
        (word, student.config.id2label[i]) for word, i in zip(words, ids, strict=True)
    ]
    grouped = pipeline("token-classification", model=str(folder), aggregation_strategy="simple")
    assert {one["entity_group"] for one in grouped(text)} <= {"animal", "place"}


def test_parts_of_speech_have_an_accuracy_and_a_teacher_without_a_head_is_trained_first(place):
    """Prevents entities of parts of speech, and a teacher whose new head is taken for a trained one."""
    place.teacher(tiny.mlm_model(4))
    names = ["X", "NOUN", "VERB", "PLACE"]
    place.save({"train": sentences(names), "test": sentences(names, ["or"])})
    assert place.run(*DATA, FINETUNE, "evaluation.seeds=2") == 0
    results = place.results
    assert (results["task"], results["headline"]) == ("tags", "accuracy")
    assert results["student"]["metrics"].keys() == {"accuracy", "f1_macro"}
    assert len(results["seeds"]["accuracy"]["seeds"]) == 2
    assert [one["name"] for one in results["breakdown"]["classes"]] == names
    assert "entity_f1" not in results["fidelity"]
    assert "accuracy over words" in (place.out / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.metric_for_best_model=accuracy", "one of .*f1, hard_label"),
        ("data.masking.probability=0.3", "keys that data.task=tokens reads"),
        ("data.text_columns=[tokens,tags]", "a second of data.text_columns"),
        ("data.text_columns=[words]", "data.text_columns"),
        ("data.augmentation.cutoff={}", "augmentation"),
        ("student.exits={after: [1]}", "a task with an output for each row"),
        ("teacher.self={kind: last_epoch}", "a task with an output for each row"),
        ("objective.soft_target_kl.rows=masked", "labelled, all or a fraction"),
        ("data.streaming=true", "data.streaming"),
        ("data.task=token_classification", "did you mean tokens"),
    ],
)
def test_what_does_not_go_with_words_is_refused(place, override, message, capsys):
    """Prevents a setting without effect, and a failure after the teacher was trained."""
    assert place.run(*DATA, "training.max_steps=2", override) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(message, told), told
    assert not (place.out / "student").exists()
