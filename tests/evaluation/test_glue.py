"""A model fine-tuned on GLUE tasks with several seeds: training, records, averages and submissions."""

import json
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distil_nlp.cli import evaluate_glue
from distil_nlp.data import unlabelled_rows
from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue import finetuning, protocol
from distil_nlp.evaluation.glue.encoder import Encoder
from distil_nlp.evaluation.glue.output_folder import default_folder
from distil_nlp.evaluation.glue.settings import parse_seeds
from distil_nlp.evaluation.glue.submission import FILES, assemble, median_seed, prediction_lines
from distil_nlp.evaluation.glue.summary import averages, over_seeds, with_score
from distil_nlp.reporting.formatting import decimal
from distil_nlp.tasks import GLUE, Head
from distil_nlp.training.checkpoints import CheckpointGuard
from distil_nlp.utils.locks import LOCK
from tests.helpers import tiny
from tests.helpers.glue import glue_folder, rows
from tests.helpers.messages import one_line
from tests.helpers.processes import forked_pair


class Place:
    """A student, a small GLUE, and a way to evaluate the one on the other."""

    def __init__(self, folder: Path):
        self.folder, self.student, self.out = folder, folder / "run" / "student", folder / "run" / "glue"

    def save(self, model) -> None:
        model.save_pretrained(self.student)
        tiny.tokenizer().save_pretrained(self.student)

    def command(self, *options: str) -> list[str]:
        fixed = ["--mode", "finetune", "--data", str(self.folder / "data"), "--batch-size", "8", "--max-steps", "3"]
        return [str(self.student), *fixed, "--learning-rate", "1e-2", *options]

    def run(self, *options: str) -> int:
        return evaluate_glue(self.command(*options))

    @property
    def summary(self) -> dict:
        return json.loads((self.out / "glue.json").read_text())

    def scores(self, task: str, seed: int) -> dict:
        return json.loads((self.out / task / f"seed-{seed}" / "scores.json").read_text())


@pytest.fixture
def place(tmp_path) -> Place:
    found = Place(tmp_path)
    found.save(tiny.mlm_model(2))
    return found


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, int, Encoder]]:
    """(task, seed, encoder it starts from) of every fine-tuning that takes place."""
    calls, real = [], protocol.finetune

    def watched(encoder, data, tokenizer, settings, seed, folder):
        calls.append((data.task, seed, encoder))
        return real(encoder, data, tokenizer, settings, seed, folder)

    monkeypatch.setattr(protocol, "finetune", watched)
    return calls


# Numbers -------------------------------------------------------------------------------------------------------


def test_a_tasks_score_is_the_mean_of_its_metrics():
    """Prevents an MRPC by F1 alone, an MNLI that counts twice, and a collapsed STS-B that is left out."""
    assert with_score({"accuracy": 0.7, "f1": 0.8})["score"] == pytest.approx(0.75)
    mnli = with_score({"accuracy": 0.6, "validation_matched/accuracy": 0.6, "validation_mismatched/accuracy": 0.8})
    assert mnli == {
        "validation_matched/accuracy": 0.6,
        "validation_mismatched/accuracy": 0.8,
        "score": pytest.approx(0.7),
    }
    assert with_score({"pearson": float("nan"), "spearmanr": 0.4}) == {"pearson": 0.0, "spearmanr": 0.4, "score": 0.2}


def test_every_seed_is_kept_beside_the_median():
    """Prevents a best-of that passes for the median, and values that lost their seeds."""
    runs = [
        {"task": task, "seed": seed, "metrics": {"accuracy": value}}
        for task, seed, value in [("rte", 3, 0.9), ("rte", 1, 0.5), ("rte", 2, 0.6), ("cola", 1, 0.1), ("cola", 2, 0.2)]
    ]
    found = over_seeds(runs)
    assert list(found) == ["cola", "rte"]
    assert found["rte"]["accuracy"] == {
        "seeds": [1, 2, 3], "values": [0.5, 0.6, 0.9], "median": 0.6, "minimum": 0.5, "maximum": 0.9,
    }  # fmt: skip
    assert found["cola"]["accuracy"]["median"] == pytest.approx(0.15)


def medians(*tasks: str, mismatched: bool = True) -> dict:
    found = {task: {"score": {"median": (i + 1) / 10}} for i, task in enumerate(tasks)}
    if "mnli" in found and mismatched:
        found["mnli"]["validation_mismatched/accuracy"] = {}
    return found


def test_averages_are_called_what_they_are():
    """Prevents three tasks, half of MNLI or a trial run from being called a GLUE score."""
    eight = [task for task in GLUE if task != "wnli"]
    assert averages(medians(*GLUE), is_trial=False) == {
        "GLUE dev average, 9 tasks": pytest.approx(0.5),
        "GLUE dev average without WNLI, 8 tasks": pytest.approx(0.45),
    }
    assert list(averages(medians(*eight), is_trial=False)) == ["GLUE dev average without WNLI, 8 tasks"]
    assert averages(medians("cola", "mrpc", "rte"), is_trial=False) == {
        "mean of 3 tasks on dev (cola, mrpc, rte)": pytest.approx(0.2)
    }
    (matched,) = averages(medians(*GLUE, mismatched=False), is_trial=False)
    assert matched.startswith("mean of 9 tasks on dev (")
    assert "mnli (matched only)" in matched
    (trial,) = averages(medians(*GLUE), is_trial=True)
    assert trial.startswith("mean of 9 tasks on dev, a trial (")
    assert averages(medians("rte"), is_trial=False) == {}


# Fine-tuning ---------------------------------------------------------------------------------------------------


def test_an_evaluation_leaves_what_it_promises(place, capsys):
    """Prevents lost seeds, a table that says something else than the file, and models that fill the disk."""
    glue_folder(place.folder / "data", "mrpc", "stsb")
    assert place.run("--tasks", "mrpc", "stsb", "--seeds", "3") == 0
    summary, printed = place.summary, capsys.readouterr().out
    for task, names in {"mrpc": ["accuracy", "f1", "score"], "stsb": ["pearson", "spearmanr", "score"]}.items():
        assert list(summary["tasks"][task]) == names
        for name, one in summary["tasks"][task].items():
            assert one["values"] == [place.scores(task, seed)["metrics"][name] for seed in (42, 43, 44)]
            assert one["median"] == statistics.median(one["values"])
            assert decimal(one["median"]) in printed
    assert len(set(summary["tasks"]["stsb"]["pearson"]["values"])) == 3
    (name,) = summary["averages"]
    assert name == "mean of 2 tasks on dev, a trial (mrpc, stsb)"
    assert f"{name}: {decimal(summary['averages'][name])}" in printed
    assert summary["rows"]["mrpc"] == {"train": 24, "validation": 12}
    assert summary["settings"]["learning_rate"] == 1e-2
    assert "versions" in summary["environment"]
    assert (
        f"| stsb | Pearson correlation | {decimal(summary['tasks']['stsb']['pearson']['median'])} |"
        in (place.out / "glue.md").read_text()
    )
    assert printed.count("mrpc  seed 4") == 3
    assert printed.strip().splitlines()[-1] == str(place.out / "glue.json")
    assert sorted(file.name for file in place.out.rglob("*") if file.is_file() and file.name != LOCK) == [
        "glue.json",
        "glue.md",
    ] + 6 * ["scores.json"]


def test_what_is_done_is_not_done_again(place, trained, capsys):
    """Prevents hours of fine-tuning for a table that was there, and seeds that are lost when others are added."""
    glue_folder(place.folder / "data", "cola", "rte")
    assert place.run("--tasks", "cola", "--seeds", "2") == 0
    first = place.summary["tasks"]["cola"]
    assert place.run("--tasks", "cola", "--seeds", "2") == 0
    assert capsys.readouterr().out.count("(done before)") == 2
    assert place.run("--tasks", "rte", "cola", "--seeds", "42,7") == 0
    assert [call[:2] for call in trained] == [("cola", 42), ("cola", 43), ("rte", 42), ("rte", 7), ("cola", 7)]
    found = place.summary["tasks"]
    assert found["cola"]["score"]["seeds"] == [7, 42, 43]
    assert found["cola"]["score"]["values"][1:] == first["score"]["values"]
    assert found["rte"]["score"]["seeds"] == [7, 42]


def test_an_interrupted_evaluation_goes_on(place, trained, monkeypatch):
    """Prevents finished seeds that are trained again, and a seed that counts though it was never scored."""
    glue_folder(place.folder / "data", "rte")
    real = protocol.score

    def stop_in_the_second(*args, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(protocol, "score", stop_in_the_second)
    assert place.run("--tasks", "rte", "--seeds", "3") == 130
    assert place.summary["tasks"]["rte"]["score"]["seeds"] == [42]
    assert place.run("--tasks", "rte", "--seeds", "3") == 0
    assert [seed for _, seed, _ in trained] == [42, 43, 43, 44]
    assert place.summary["tasks"]["rte"]["score"]["seeds"] == [42, 43, 44]


def test_a_long_fine_tuning_goes_on_from_its_checkpoint(place, tmp_path, monkeypatch):
    """Prevents hours on MNLI that start anew, and a resumed model that is another one."""
    glue_folder(place.folder / "data", "mnli")
    monkeypatch.setattr(finetuning, "CHECKPOINT_STEPS", 2)
    options = ["--tasks", "mnli", "--seeds", "42,", "--from-mnli", "--max-steps", "5"]
    assert place.run(*options, "--output", str(tmp_path / "whole")) == 0
    real, steps = CheckpointGuard.on_step_end, []

    def stop_at_4(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        steps.append(state.global_step)
        if steps == [1, 2, 3]:
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointGuard, "on_step_end", stop_at_4)
    assert place.run(*options) == 130
    assert place.run(*options) == 0
    assert steps == [1, 2, 3, 3, 4, 5]
    model = Path("mnli", "seed-42", "model", "model.safetensors")
    whole, resumed = load_file(tmp_path / "whole" / model), load_file(place.out / model)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not list(place.out.rglob("checkpoint-*"))


def test_the_folder_belongs_to_one_evaluation(place, trained, capsys):
    """Prevents medians over unlike settings or models, and files of others that are mixed in."""
    glue_folder(place.folder / "data", "rte")
    assert place.run("--tasks", "rte", "--seeds", "1") == 0
    assert place.run("--tasks", "rte", "--seeds", "1", "--warmup", "0.5", "--from-mnli") == 2
    assert "warmup was 0.1, is 0.5; from_mnli was False, is True" in capsys.readouterr().err
    place.save(tiny.mlm_model(2, seed=1))
    assert place.run("--tasks", "rte", "--seeds", "1") == 2
    assert "the model's encoder_sha256 was " in capsys.readouterr().err
    assert place.run("--tasks", "rte", "--output", str(place.student)) == 2
    assert f"got {place.student} with something else" in one_line(capsys.readouterr().err)
    assert len(trained) == 1


def test_what_is_missing_is_said_before_any_training(place, trained, capsys):
    """Prevents a missing task that is found out after hours on the others, in a folder that then is another's."""
    glue_folder(place.folder / "data", "rte")
    assert place.run("--tasks", "rte", "cola", "--seeds", "1") == 2
    assert "'cola'" in capsys.readouterr().err
    assert not trained
    assert not place.out.exists()


def test_a_student_of_another_task_gets_a_new_head(place, trained):
    """Prevents a student distilled on MRPC that starts RTE with MRPC's head, or is rejected for its labels."""
    glue_folder(place.folder / "data", "rte", "mnli")
    student = tiny.classifier(2)
    student.config.id2label = {0: "not_equivalent", 1: "equivalent"}
    place.save(student)
    assert place.run("--tasks", "rte", "mnli", "--seeds", "1") == 0
    encoder = trained[0][2]
    torch.manual_seed(1)
    fresh = encoder.with_head(Head("classification", GLUE["mnli"].labels, 3))
    assert fresh.classifier.weight.shape == (3, 32)
    assert list(fresh.config.id2label.values()) == list(GLUE["mnli"].labels)
    for name, value in student.bert.state_dict().items():
        assert torch.equal(fresh.bert.state_dict()[name], value), name
    again = encoder.with_head(Head("classification", GLUE["rte"].labels, 2))
    assert not torch.equal(again.classifier.weight, student.classifier.weight)


def test_an_encoder_without_its_weights_is_refused(tmp_path):
    """Prevents a GLUE score of random weights that passes for the model's."""
    tiny.mlm_model(2).save_pretrained(tmp_path)
    encoder = Encoder.load(str(tmp_path))
    del encoder.weights["encoder.layer.1.output.dense.weight"]
    with pytest.raises(UserError, match=r"got none for 1 of its 37 tensors \(encoder.layer.1.output.dense.weight"):
        encoder.with_head(Head("regression", None, 1))


@pytest.mark.integration
def test_small_tasks_start_from_mnli_of_their_seed(place, trained, capsys):
    """Prevents a start from another seed's MNLI model, with its head, or from the student although asked otherwise."""
    glue_folder(place.folder / "data", "cola", "stsb", "mnli")
    assert place.run("--tasks", "stsb", "--seeds", "2", "--from-mnli") == 2
    assert "add mnli to --tasks" in capsys.readouterr().err
    assert place.run("--tasks", "cola", "stsb", "mnli", "--seeds", "2", "--from-mnli") == 0
    assert [call[0] for call in trained] == ["mnli", "mnli", "cola", "cola", "stsb", "stsb"]
    student, first, second = trained[2][2], trained[4][2], trained[5][2]
    assert trained[0][2] is student
    for seed, start in ((42, first), (43, second)):
        mnli = load_file(place.out / "mnli" / f"seed-{seed}" / "model" / "model.safetensors")
        assert start.weights.keys() == {name.removeprefix("bert.") for name in mnli if name.startswith("bert.")}
        assert all(torch.equal(value, mnli[f"bert.{name}"]) for name, value in start.weights.items())
    assert len({student.sha256, first.sha256, second.sha256}) == 3
    assert list(place.out.glob("stsb/*/model")) == []
    shutil.rmtree(place.out / "mnli" / "seed-43" / "model")
    shutil.rmtree(place.out / "stsb" / "seed-43")
    assert place.run("--tasks", "stsb", "mnli", "--seeds", "2", "--from-mnli") == 0
    assert [call[:2] for call in trained[6:]] == [("mnli", 43), ("stsb", 43)]


@pytest.mark.integration
def test_two_processes_give_the_scores_of_one(tmp_path):
    """Prevents a batch that grows with the processes, files written twice, and filler rows in scores or predictions."""
    one, two = Place(tmp_path / "one"), Place(tmp_path / "two")
    for place in (one, two):
        place.save(tiny.mlm_model(2))
        glue_folder(place.folder / "data", "stsb", with_tests=("stsb",))
    options = ["--tasks", "stsb", "--seeds", "2", "--submission"]
    assert one.run(*options) == 0
    printed = forked_pair("scripts/evaluate_glue.py", *two.command(*options))
    assert printed.count("stsb  seed 42") == 1
    assert printed.strip().splitlines()[-1] == str(two.out / "glue.json")
    assert two.summary["environment"]["processes"] == 2
    expected = one.summary["tasks"]["stsb"]["pearson"]["values"]
    assert two.summary["tasks"]["stsb"]["pearson"]["values"] == pytest.approx(expected, rel=1e-3)
    files = [np.loadtxt(where.out / "submission" / "STS-B.tsv", skiprows=1) for where in (one, two)]
    assert files[1] == pytest.approx(files[0], rel=1e-3)


# Submission ----------------------------------------------------------------------------------------------------


def test_predictions_are_written_as_glue_wants_them():
    """Prevents words where the server takes numbers, numbers where it takes words, and rows out of order."""
    logits, index = np.array([[0.0, 1, 0], [2, 1, 0], [0, 1, 2]]), np.array([2, 0, 1])
    assert prediction_lines(GLUE["mnli"], logits, index) == [
        "index\tprediction", "0\tentailment", "1\tcontradiction", "2\tneutral",
    ]  # fmt: skip
    two, order = logits[:, :2], np.arange(3)
    for task in ("cola", "sst2", "mrpc", "qqp", "wnli"):
        assert prediction_lines(GLUE[task], two, order)[1:] == ["0\t1", "1\t0", "2\t1"]
    for task in ("qnli", "rte"):
        lines = prediction_lines(GLUE[task], two, order)[1:]
        assert lines == ["0\tnot_entailment", "1\tentailment", "2\tnot_entailment"]
    numbers = prediction_lines(GLUE["stsb"], np.array([[-0.3], [2.5], [5.2]]), order)
    assert numbers == ["index\tprediction", "0\t0.000000", "1\t2.500000", "2\t5.000000"]


def test_labels_of_a_test_split_are_not_read():
    """Prevents -1 that is rejected as a label, and MRPC's test labels, which are public, in what a model is given."""
    found = unlabelled_rows(rows("rte", range(4), labelled=False), tiny.tokenizer(), GLUE["rte"], "test", max_length=8)
    assert list(found["labels"]) == [-100] * 4
    assert max(found["length"]) == 8
    with pytest.raises(UserError, match="expected columns question1, question2 / got sentence1, sentence2"):
        unlabelled_rows(rows("mrpc", range(4)), tiny.tokenizer(), GLUE["qqp"], "test")


@pytest.mark.integration
def test_a_submission_answers_every_row_in_order(place, trained, capsys):
    """Prevents files with lost rows, of the best seed, or of rows in the order of the disk."""
    glue_folder(place.folder / "data", "mrpc", "mnli", "rte", with_tests=("mrpc", "mnli"))
    options = ["--tasks", "mrpc", "mnli", "rte", "--seeds", "3", "--submission"]
    assert place.run(*options) == 0
    printed = capsys.readouterr().out
    handed_in = place.out / "submission"
    sizes = {"MRPC.tsv": 7, "MNLI-m.tsv": 7, "MNLI-mm.tsv": 7, "AX.tsv": 5}
    assert {file.name for file in handed_in.iterdir()} == set(sizes)
    for name, count in sizes.items():
        header, *lines = (handed_in / name).read_text().splitlines()
        assert header == "index\tprediction"
        assert [line.split("\t")[0] for line in lines] == [str(i) for i in range(count)]
        allowed = {"0", "1"} if name == "MRPC.tsv" else set(GLUE["mnli"].labels)
        assert {line.split("\t")[1] for line in lines} <= allowed
    (seed,) = re.findall(r"submission/MRPC.tsv: seed (\d+), the median of 3 by its score on dev", printed)
    assert place.scores("mrpc", int(seed))["metrics"]["score"] == place.summary["tasks"]["mrpc"]["score"]["median"]
    assert (handed_in / "MRPC.tsv").read_text() == (place.out / "mrpc" / f"seed-{seed}" / "MRPC.tsv").read_text()
    assert "rte: the data has no test split for RTE.tsv" in printed
    assert "no zip, since GLUE's server wants all files; missing: CoLA.tsv" in printed
    assert place.run(*options) == 0
    assert len(trained) == 9


def test_predictions_are_made_up_for_when_asked_for_later(place, trained):
    """Prevents a submission without the seeds that were trained before it was asked for."""
    glue_folder(place.folder / "data", "cola", with_tests=("cola",))
    assert place.run("--tasks", "cola", "--seeds", "1") == 0
    assert not (place.out / "submission").exists()
    assert place.run("--tasks", "cola", "--seeds", "2", "--submission") == 0
    assert [seed for _, seed, _ in trained] == [42, 42, 43]
    assert len((place.out / "submission" / "CoLA.tsv").read_text().splitlines()) == 8


def test_a_complete_submission_is_zipped(tmp_path):
    """Prevents a zip with folders in it, or one that the server rejects for a missing file."""
    records = []
    for task, files in FILES.items():
        (tmp_path / task / "seed-1").mkdir(parents=True)
        for file in files.values():
            (tmp_path / task / "seed-1" / file).write_text(f"index\tprediction\n0\t{task}\n")
        records.append({"task": task, "seed": 1, "metrics": {"score": 0.5}, "predictions": [*files.values()]})
    assert assemble(tmp_path, records)[-1] == str(tmp_path / "submission.zip")
    shutil.unpack_archive(tmp_path / "submission.zip", tmp_path / "unpacked")
    names = {"AX", "CoLA", "MNLI-m", "MNLI-mm", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI"}
    assert {file.name for file in (tmp_path / "unpacked").iterdir()} == {f"{name}.tsv" for name in names}


def test_the_median_seed_is_one_that_was_trained():
    """Prevents a median between two seeds, which has no predictions."""
    assert median_seed({1: 0.9, 2: 0.1, 3: 0.5}) == 3
    assert median_seed({1: 0.9, 2: 0.1, 3: 0.5, 4: 0.6}) == 3
    assert median_seed({5: 0.4}) == 5


# The command line ----------------------------------------------------------------------------------------------


def test_seeds_are_a_count_or_a_list():
    """Prevents `7` that is read as seed 7 by one and as seven seeds by another."""
    assert parse_seeds("3") == [42, 43, 44]
    assert parse_seeds("1,2,3") == [1, 2, 3]
    assert parse_seeds("7,") == [7]
    for wrong in ("0", "-1", "1,1", "a", "1,x", "", ",", "4294967296,"):
        with pytest.raises(ValueError):
            parse_seeds(wrong)


def test_options_without_effect_are_refused(place, capsys):
    """Prevents `--epochs 5` that is typed, forgotten `--mode finetune`, and believed."""
    with pytest.raises(SystemExit):
        evaluate_glue([str(place.student), "--tasks", "rte", "--epochs", "5", "--from-mnli"])
    assert "--epochs, --from-mnli: expected with --mode finetune / got --mode score" in capsys.readouterr().err
    for option in (["--learning-rate", "nan"], ["--warmup", "1"], ["--seeds", "1,1"]):
        with pytest.raises(SystemExit):
            place.run("--tasks", "rte", *option)


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("runs/x/student", "runs/x/glue"),
        ("google-bert/bert-base-uncased", "runs/glue-bert-base-uncased"),
        ("me/student", "runs/glue-student"),
    ],
)
def test_results_lie_beside_the_student(tmp_path, monkeypatch, model, folder):
    """Prevents scores of two models in one folder, and a folder named after somebody on the Hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x" / "student").mkdir(parents=True)
    assert default_folder(model) == Path(folder)
