"""Whole runs on questions about texts, in both forms of SQuAD, to a model that plain transformers loads."""

import json
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForQuestionAnswering

from distil_nlp.evaluation.predict import predict
from distil_nlp.evaluation.qa import EVALUATOR, best_null_threshold
from distil_nlp.pipeline.kept_outputs import load_outputs
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import load_recipe
from distil_nlp.results.predictions import read_predictions
from tests.helpers import squad, tiny
from tests.helpers.runs import Place

DATA = ("data.task=qa", "data.text_columns=[question,context]", "data.label_column=answers")
SHORT = ("data.max_length=24", "data.stride=4")
FINETUNE = "teacher.finetune={max_steps: 2, per_device_train_batch_size: 4}"


@pytest.fixture
def place(tmp_path):
    """A teacher that answers questions, and rows in the form of SQuAD 1.1."""
    place = Place(tmp_path)
    place.teacher(tiny.reader(4, initializer_range=0.2))
    write(place)
    return place


def write(place, unanswerable=0, **changes):
    counts = {"train": (16, 0), "validation": (8, 1), "test": (8, 2)}
    rows = {name: squad.questions(count, seed, unanswerable, **changes) for name, (count, seed) in counts.items()}
    place.save({name: squad.dataset(own) for name, own in rows.items()})


@pytest.mark.integration
def test_questions_go_through_a_whole_run(place, capsys):
    """Prevents a kind that trains and cannot be read: scores, intervals, report, card, and the card's own snippet."""
    every_epoch = ("training.eval_strategy=epoch", "training.save_strategy=epoch", "training.num_train_epochs=2")
    best = ("training.load_best_model_at_end=true", "training.metric_for_best_model=f1")
    assert place.run(*DATA, *SHORT, *every_epoch, *best, "evaluation.baselines=[no_distillation]") == 0
    out, results = capsys.readouterr().out, place.results
    assert "all questions have an answer" in out
    assert (results["task"], results["headline"], results["labels"]) == ("qa", "f1", None)
    assert results["teacher"]["metrics"].keys() == results["student"]["metrics"].keys() == {"f1", "exact_match"}
    assert results["baselines"]["no_distillation"]["gain"]["rows"] == 8  # questions, not windows
    assert (results["rows"]["evaluation"], results["fidelity"]["rows"]) == ({"test": 8}, 8)
    assert results["fidelity"].keys() >= {"rows", "agreement", "kl", "cka"}
    logged = [entry["eval_f1"] for entry in results["training"]["history"] if "eval_f1" in entry]
    assert len(logged) == 2
    report, card = ((place.out / path).read_text() for path in ("report/report.md", "student/README.md"))
    assert "exact match" in report
    assert "answer without a model" in report
    assert "pipeline_tag: question-answering" in card
    assert "AutoModelForQuestionAnswering" in card
    student = AutoModelForQuestionAnswering.from_pretrained(place.out / "student").eval()
    assert torch.equal(student.qa_outputs.bias.isfinite(), torch.ones(2, dtype=torch.bool))
    check_snippet(card, place.out / "student")


def check_snippet(card, folder):
    """The card's own code runs, and prints a piece of its context."""
    found = run_snippet(card, folder)
    assert found
    assert found in "the cat sees the dog"


def run_snippet(card, folder):
    """Return what the card's own code prints."""
    code = re.search(r"```python\n(.*?)```", card, re.S).group(1)
    code = re.sub(r'from_pretrained\("[^"]*"\)', f'from_pretrained("{folder}")', code)
    code = code.replace("It was written by Ada in 1843.", "the cat sees the dog").replace("Who wrote it?", "cat ?")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_questions_without_an_answer_are_scored_apart(place):
    """Prevents version 2 from being taken for version 1; also with unlabelled rows, and a teacher without a head."""
    place.teacher(tiny.mlm_model(4))
    write(place, unanswerable=3)
    rows = squad.questions(16, 0, 3, 5)
    squad.dataset(rows).to_parquet(place.folder / "data" / "train-00000-of-00001.parquet")
    assert place.run(*DATA, *SHORT, FINETUNE, "evaluation.seeds=2") == 0
    results = place.results
    names = {"f1", "exact_match", "HasAns_f1", "HasAns_exact", "NoAns_f1"}
    kept = read_predictions(place.out).to_pylist()
    scored = squad.dataset(squad.questions(8, 2, 3))
    assert [(row["row"], row["text"], row["text_pair"]) for row in kept] == [
        (number, row["question"], row["context"]) for number, row in enumerate(scored)
    ]
    assert [row["label"] for row in kept] == [(row["answers"]["text"] or [""])[0] for row in scored]
    assert all(row["student"] in row["text_pair"] for row in kept)
    exact = 1 - sum(row["student_error"] for row in kept) / len(kept)
    assert exact == pytest.approx(results["student"]["metrics"]["exact_match"])
    assert sum(part["rows"] for part in results["breakdown"]["lengths"]) == len(kept)
    assert (results["task"], results["student"]["metrics"].keys()) == ("qa_v2", names)
    assert results["baselines"]["majority"]["metrics"]["f1"] == pytest.approx(3 / 8)
    assert (results["thresholds"]["rows"], results["thresholds"]["models"]["student"]) == (None, 0)
    assert len(results["seeds"]["f1"]["seeds"]) == 2


@pytest.mark.integration
def test_the_threshold_of_no_answer_is_chosen_on_rows_that_are_not_scored(place):
    """Prevents a threshold of the scored rows, scores at another one than is written down, and a snippet without it."""
    place.teacher(tiny.reader(4, initializer_range=0.2))
    write(place, unanswerable=3)
    chosen = ("training.eval_strategy=epoch", "training.save_strategy=epoch", "data.evaluation_splits=[test]")
    assert place.run(*DATA, *SHORT, *chosen) == 0
    results = place.results
    assert results["thresholds"]["rows"] == 8  # questions, not windows
    threshold = results["thresholds"]["models"]["student"]
    assert json.loads((place.out / "student" / "config.json").read_text())["threshold"] == threshold
    outputs = load_outputs(place.out / "outputs.npz")["test"]
    assert outputs.threshold == threshold
    assert EVALUATOR.score("qa_v2", outputs) == pytest.approx(results["student"]["metrics"])
    student = AutoModelForQuestionAnswering.from_pretrained(place.out / "student")
    plan = RunPlan.of(load_recipe(place.out / "recipe.yaml"), "again")
    data = load_data(plan)[1]
    choosing = predict(student, "qa", {"": data.split.selection}, data.scored_by)[""]
    assert best_null_threshold(choosing.predictions, choosing.labels) == pytest.approx(threshold, abs=1e-4)
    card = (place.out / "student/README.md").read_text()
    for text in (card, (place.out / "report/report.md").read_text()):
        assert "minus that of the best answer, is above" in text.replace("\xa0", " ")
        assert "with the best F1 on 8 questions that scores are not of" in text.replace("\xa0", " ")
    for value, wanted in ((-1e9, ""), (1e9, "answer")):
        config = json.loads((place.out / "student" / "config.json").read_text()) | {"threshold": value}
        (place.out / "student" / "config.json").write_text(json.dumps(config))
        assert bool(run_snippet(card, place.out / "student")) == bool(wanted)


def test_one_file_of_json_lines_is_split_by_contexts(place):
    """Prevents a context that is trained on and scored."""
    file = place.folder / "rows.jsonl"
    twice = [{**row, "question": f"{word} ?"} for row in squad.questions(12) for word in ("cat", "dog")]
    file.write_text("".join(json.dumps(row) + "\n" for row in twice))
    assert place.run(*DATA, *SHORT, f"data.path={file}", "training.max_steps=2") == 0
    assert place.results["rows"]["held_out"] == "test"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.metric_for_best_model=accuracy", "one of .*f1, hard_label"),
        ("objective.soft_target_kl.rows=all", "keys that data.task=qa reads"),
        ("objective.soft_target_kl.by_confidence=true", "false for question answering"),
        ("objective.decoupled_kd={}", "two distributions over the positions of a text"),
        ("objective.dist_inter={}", "two distributions over the positions of a text"),
        ("objective.label_smoothing={}", "two distributions over the positions of a text"),
        ("objective.input_gradient={}", "two distributions over the positions of a text"),
        ("data.text_columns=[context]", "two columns, of questions and of contexts"),
        ("data.label_column=question", "text: .*answer_start: .* as SQuAD has it"),
        ("data.stride=30", "data.stride expected less than"),
        ("data.augmentation.cutoff={}", "augmentation"),
        ("student.exits={after: [1]}", "a task with an output for each row"),
        ("teacher.self={kind: last_epoch}", "a class or a number for each row"),
        ("data.streaming=true", "data.streaming"),
        ("data.task=question_answering", "did you mean qa"),
    ],
)
def test_what_does_not_go_with_questions_is_refused(place, override, message, capsys):
    """Prevents a setting without effect, and a failure after the teacher was trained."""
    assert place.run(*DATA, *SHORT, "training.max_steps=2", override) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(message, told), told
    assert not (place.out / "student").exists()
