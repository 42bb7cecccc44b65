"""One's own model and one file of rows: a run, and a check of it beforehand."""

import csv
import json

import pytest
from datasets import Dataset

from distil_nlp.cli import main
from tests.helpers import ROOT, tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with a teacher that classifies and a CSV file of its own columns."""
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path).prepare()
    texts = list(dict.fromkeys(place.texts))
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "body", "team"), *((i, t, ["no", "yes"][i % 2]) for i, t in enumerate(texts))]
        )
    return place


def command(place, name="distill", *more):
    return [
        name, str(ROOT / "recipes/own_data.yaml"), f"teacher.name={place.folder / 'teacher'}", "data.path=tickets.csv",
        "data.text_columns=body", "data.label_column=team", "data.max_length=32", "training.use_cpu=true",
        "training.max_steps=2", "run.accept_weak_teacher=true", "evaluation.baselines=[]", *more,
    ]  # fmt: skip


def test_one_file_and_a_trained_teacher_are_a_run(place, capsys):
    """Prevents four refusals and a trap on the way to the commonest job."""
    assert main(command(place)) == 0
    said = capsys.readouterr()
    assert "are kept for scoring" in said.out + said.err
    results = json.loads((place.folder / "runs/own_data-tickets-42/results.json").read_text())
    rows = results["rows"]
    total = len(set(place.texts))
    assert rows["held_out"] == "test"
    assert rows["train"] + rows["evaluation"]["test"] == total
    assert rows["evaluation"]["test"] == pytest.approx(0.2 * total, abs=1)
    assert rows["in_training"] == {"test": 0}
    assert results["recipe"]["teacher"]["finetune"] is None
    assert results["labels"] == ["no", "yes"]
    assert not (place.folder / "runs/teachers").exists()
    assert main(command(place)) == 0
    assert "this run is finished" in capsys.readouterr().out


@pytest.mark.integration
def test_a_teacher_without_a_head_is_fine_tuned(place):
    """Prevents a refusal, or a random head, for an encoder that nobody has fine-tuned."""
    place.teacher(tiny.mlm_model(4))
    assert main(command(place, "distill", "teacher.finetune.max_steps=1")) == 0
    results = json.loads((place.folder / "runs/own_data-tickets-42/results.json").read_text())
    assert results["recipe"]["teacher"]["finetune"]["max_steps"] == 1


def test_a_check_tells_all_and_keeps_nothing(place, capsys):
    """Prevents hours that are spent before a mistake is seen."""
    before = sorted(path for path in place.folder.rglob("*"))
    assert main(command(place, "check")) == 0
    said = capsys.readouterr().out
    for words in (
        "tickets.csv: ", "to score on in test (kept from the same rows)", "0 no (", "1 yes (",
        "max_length=32 cuts none", "4 layers", "used as it is", "2 layers", "from teacher layers [1, 3]",
        "hidden_cosine, weight 1; teacher layer",
        "1 → 0, 3 → 1", "2 of 32 rows, for 1 student", "distilling: ", "GiB", "MB at most",
        "nothing was trained or kept",
    ):  # fmt: skip
        assert words in " ".join(said.split()), words
    assert sorted(path for path in place.folder.rglob("*")) == before


@pytest.mark.integration
def test_a_check_of_a_teacher_to_be_trained_times_that_too(place, capsys):
    """Prevents an estimate without the longest part."""
    place.teacher(tiny.mlm_model(4))
    assert main(command(place, "check", "evaluation.baselines=[no_distillation]")) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "fine-tuned first, into runs/teachers/",
        "fine-tuning the teacher: ",
        "no distillation: ",
        "together",
    ):
        assert words in said
    assert not (place.folder / "runs").exists()


def test_a_check_refuses_what_a_run_refuses(place, capsys):
    """Prevents a check that is content with a recipe that fails."""
    assert main(command(place, "check", "data.label_column=nonsense")) == 2
    assert "data.label_column: expected a column 'nonsense'" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_several_files_are_a_run(place):
    """Prevents that a folder is needed for a training and a test file."""
    rows = Dataset.from_csv("tickets.csv")
    rows.select(range(20)).to_csv("a.csv")
    rows.select(range(20, len(rows))).to_csv("b-test.csv")
    assert main(command(place, "distill", "data.path=[a.csv,b-test.csv]")) == 0
    rows = json.loads((place.folder / "runs/own_data-a-42/results.json").read_text())["rows"]
    assert (rows["train"], rows["held_out"]) == (20, None)


@pytest.mark.parametrize(
    ("override", "words"),
    [("data.path=3", "data.path: expected a valid string or "), ("data.path=[]", "data.path: "),
     ("data.test_share=0", "data.test_share: "), ("teacher.finetune_when=never", "teacher.finetune_when: ")],
)  # fmt: skip
def test_mistakes_are_named(place, capsys, override, words):
    """Prevents pydantic's words about members of a union."""
    assert main(command(place, "distill", override)) == 2
    assert words in one_line(capsys.readouterr().err)
