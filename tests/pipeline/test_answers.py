"""Whole runs whose teacher is columns of the data."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from distil_nlp.cli import main
from distil_nlp.errors import UserError
from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import load_recipe
from distil_nlp.results.predictions import read_predictions
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

OUTPUTS_ALONE = ("objective.hidden_cosine=null", "objective.attention_kl=null")
COLUMNS = "teacher.columns={probabilities: {'yes': y, 'no': n}, source: GPT-X, price: price}"


def answers(place, gaps=()):
    """Columns of a model's probabilities, null in some rows."""
    model = tiny.classifier(4).eval()
    model.classifier.weight.data *= 20
    with torch.no_grad():
        rows = [model(**tiny.tokenizer()(text, return_tensors="pt")).logits.softmax(-1)[0] for text in place.texts]
    found = {"n": [float(row[0]) for row in rows], "y": [float(row[1]) for row in rows], "price": [0.25] * len(rows)}
    return found | {name: [None if i in gaps else v for i, v in enumerate(found[name])] for name in ("n", "y")}


def place_of(folder, scored, gaps=()):
    """A folder with answers to the training rows, and to all others if they are scored."""
    place = Place(folder).prepare()
    place.classes(**answers(place, gaps))
    for split in [] if scored else ["test", "validation"]:
        (file,) = (place.folder / "data").glob(f"{split}*")
        Dataset.from_parquet(str(file)).remove_columns(["n", "y", "price"]).to_parquet(str(file))
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a teacher and rows, which no test changes."""
    return Place(tmp_path_factory.mktemp("answers")).prepare()


def one_spaced(text):
    """A text with single spaces, without those that do not break."""
    return " ".join(text.split())


def log(place):
    return [
        entry["loss"] for entry in json.loads((place.out / "training.json").read_text())["history"] if "loss" in entry
    ]


@pytest.mark.integration
def test_a_whole_run_with_answers_to_all_rows(tmp_path):
    """Prevents answers that are not scored as a teacher, a cost of a teacher that is no model, and a card of a student
    that a model taught."""
    place = place_of(tmp_path, scored=True)
    place.run(COLUMNS, *OUTPUTS_ALONE, "evaluation.baselines=[no_distillation]", "evaluation.seeds=2")
    results = place.results
    known = {"form": "probabilities", "source": "GPT-X", "rows": 24, "answered": 24, "price": 8.25, "scored": True}
    assert results["teacher"]["answers"].items() >= known.items()
    predicted = [y > n for n, y in zip(answers(place)["n"][:9], answers(place)["y"][:9], strict=True)]
    assert results["teacher"]["metrics"]["accuracy"] == np.mean([i % 2 == p for i, p in enumerate(predicted)])
    assert "parameters" not in results["teacher"]
    assert "cka" not in results["fidelity"]
    assert 0 <= results["fidelity"]["agreement"] <= 1
    assert results["retention"] is not None
    rows = read_predictions(place.out)
    assert rows["teacher"].to_pylist() == ["yes" if p else "no" for p in predicted]
    card, report = (one_spaced((place.out / name).read_text()) for name in ("student/README.md", "report/report.md"))
    for page in (card, report):
        assert "Teacher: answers by GPT-X in the data’s columns; no model." in page
    assert "made of `teacher` and distilled from answers by GPT-X in the data’s columns" in card
    assert "24 of 24 training rows have an answer." in card
    assert "All answers that were read cost 8.25" in card


@pytest.mark.integration
def test_a_whole_run_with_answers_to_some_training_rows_alone(tmp_path, capsys):
    """Prevents a teacher's score, a retention or a fidelity that nobody measured, and NaN in rows without an answer."""
    place = place_of(tmp_path, scored=False, gaps=(1, 5, 6))
    place.run(COLUMNS, *OUTPUTS_ALONE, "evaluation.efficiency=quick")
    shown = capsys.readouterr()
    told = one_spaced(shown.out + shown.err)
    assert "answers by GPT-X to 21 of 24 training rows; of the other 3 labels alone are learnt" in told
    assert "was not scored: rows of the evaluation splits have none, so that there is no retention." in told
    results = place.results
    assert results["retention"] is None
    assert "fidelity" not in results
    assert "metrics" not in results["teacher"]
    assert {"teacher"}.isdisjoint([*results["intervals"], *results["calibration"]])
    assert "teacher" not in read_predictions(place.out).column_names
    assert all(np.isfinite(log(place)))
    card = one_spaced((place.out / "student/README.md").read_text())
    assert "was not scored: rows of the evaluation splits have none" in card
    assert "retention |" not in card


@pytest.mark.integration
def test_answers_of_a_model_train_as_that_model_does(tmp_path):
    """Prevents answers that are another teacher than the model which gave them: the same losses, step by step."""
    place = place_of(tmp_path, scored=True)
    model = tiny.classifier(4)
    model.classifier.weight.data *= 20
    model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    place.teacher(model)
    often = [*OUTPUTS_ALONE, "training.learning_rate=1e-3"]
    place.run(*often)
    asked, place.out = log(place), tmp_path / "answers"
    place.run(COLUMNS, *often)
    assert log(place) == pytest.approx(asked, rel=2e-4)
    assert len(asked) > 2


def test_a_student_with_a_checkpoint_needs_no_teacher(tmp_path, capsys):
    """Prevents a model that is named for nothing: `student.name` alone, without a head."""
    place = place_of(tmp_path, scored=False)
    tiny.mlm_model(2).save_pretrained(tmp_path / "start")
    tiny.tokenizer().save_pretrained(tmp_path / "start")
    recipe, output, *_ = place.command()
    text = Path(recipe).read_text()
    Path(recipe).write_text(text.replace(f"name: {tmp_path}/teacher, ", f"columns: {COLUMNS.partition('=')[2]}, "))
    command = ["check", recipe, output, *OUTPUTS_ALONE, f"student.name={tmp_path}/start"]
    assert main(command) == 0
    out = one_spaced(capsys.readouterr().out)
    assert "teacher answers by GPT-X to 24 of 24 training rows" in out
    assert "students are made of it; it does not teach" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teacher.cache={}"], "there is nothing to cache: the answers are in the data"),
        (["teacher.finetune={}"], "no model teaches, so that none is trained first"),
        (["teacher.ensemble=[other]"], "beside models, answers are a member: teacher.ensemble=[{columns"),
        (["teacher.self=ema"], "the answers teach, not the student"),
        (["teacher.dtype=bfloat16"], "none has a precision"),
        (["student.replacing={}"], "the teacher's layers would run in place of the student's"),
        (["student.generations=2"], "the second generation would have a model as its teacher"),
        (["evaluation.baselines=[plain]"], "compare with no_distillation"),
        (["objective.attention_kl={}"], "answers have no layers, states or attention to compare with"),
        (["objective.soft_target_kl=null"], "a term that learns from the answers"),
        (["data.augmentation.mixup={}"], "the answers are to the rows as the data has them"),
        (["teacher.columns={logits: z, probabilities: p}"], "one of probabilities, logits, scores and label"),
        (["teacher.columns={source: me}"], "got none of them"),
        (["teacher.columns={logits: z, confidence: c}"], "these have probabilities of their own"),
    ],
)
def test_what_does_not_go_with_answers_is_refused_before_anything_is_loaded(place, changes, message):
    """Prevents keys that nothing reads, and terms that look for layers in a column."""
    command = place.command("teacher.columns={probabilities: p}", *OUTPUTS_ALONE, *changes)
    plan = RunPlan.of(load_recipe(command[0], command[1:]), "tiny")
    with pytest.raises(UserError, match=re.escape(message)):
        preflight.validate_plan(plan)


def test_answers_worse_than_a_guess_stop_a_run(tmp_path, capsys):
    """Prevents a student of answers whose classes are the wrong way round."""
    place = Place(tmp_path).prepare()
    wrong = [[0.9, 0.1] if i % 2 else [0.1, 0.9] for i in range(len(place.texts))]
    place.classes(p=wrong)
    command = place.command("teacher.columns={probabilities: p}", *OUTPUTS_ALONE, "run.accept_weak_teacher=false")
    assert main(["distill", *command]) == 2
    assert "0.000 of the answers" in (told := one_line(capsys.readouterr().err))
    assert "name the columns by class" in told


def test_other_answers_are_another_run(tmp_path, capsys):
    """Prevents an unfinished run that carries on with other answers."""
    place = place_of(tmp_path, scored=True)
    command = place.command(COLUMNS, *OUTPUTS_ALONE)
    place.run(COLUMNS, *OUTPUTS_ALONE)
    (place.out / "results.json").unlink()
    place.classes(**{**answers(place), "n": [0.5] * 24, "y": [0.5] * 24})
    assert main(["distill", *command]) == 2
    assert "training rows" in one_line(capsys.readouterr().err)


IN_ENSEMBLE = "teacher.ensemble=[{columns: {probabilities: {'yes': y, 'no': n}, source: GPT-X}, weight: 0.5}]"


@pytest.mark.integration
@pytest.mark.parametrize(("scored", "gaps"), [(True, ()), (False, (1, 5, 6))])
def test_answers_teach_beside_a_model(tmp_path, capsys, scored, gaps):
    """Prevents NaN in rows without an answer, scores of answers that evaluation rows have not, and pages that do not
    tell who taught."""
    place = place_of(tmp_path, scored, gaps)
    place.run(IN_ENSEMBLE, "evaluation.efficiency=quick")
    shown = capsys.readouterr()
    told, results = one_spaced(shown.out + shown.err), place.results
    answered = 24 - len(gaps)
    assert f"answers by GPT-X to {answered} of 24 training rows" in told
    assert ("of the other 3 the models’ outputs alone are learnt" in told) == bool(gaps)
    assert all(np.isfinite(log(place)))
    teacher = results["teacher"]
    assert teacher["answers"]["answered"] == answered
    assert teacher["ensemble"] == ["answers by GPT-X in the data’s columns"]
    assert teacher["parameters"] == sum(p.numel() for p in tiny.classifier(4).parameters())
    model, answers = teacher["members"]
    assert (model["weight"], answers["weight"]) == (1.0, 0.5)
    assert ("metrics" in answers) == scored
    assert answers["row_weights"]["mean"] == pytest.approx(1 / 3 if scored else 0, abs=1e-6)
    if not scored:
        assert teacher["metrics"] == model["metrics"]  # which alone has outputs for these rows
    card, report = (one_spaced((place.out / name).read_text()) for name in ("student/README.md", "report/report.md"))
    for page in (card, report):
        assert (
            "learned from a teacher and from answers by GPT-X in the data’s columns, whose logits were averaged" in page
        )
    assert f"{answered} of 24 training rows have an answer" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teacher.ensemble=[{columns: {logits: z}}, {columns: {logits: y}}]"], "one member with columns / got 2"),
        (["teacher.ensemble=[{columns: {logits: z, probabilities: p}}]"], "one of probabilities, logits, scores"),
        (["teacher.ensemble=[{columns: {logits: z}}]", "teacher.weight=0"], "a model with a weight above 0"),
        (["teacher.ensemble=[{columns: {logits: z}}]", "data.augmentation.mixup={}"], "rows that are changed or made"),
        (["teacher.ensemble=[{columns: {logits: z}}]", "teacher.weighting=correctness"], "fixed with answers in"),
        (["teacher.ensemble=[{columns: {logits: z}, name: x}]"], "a teacher with a name, or with columns"),
        (["teacher.ensemble=[{weight: 2}]"], "a teacher with a name, or with columns"),
        (["teacher.ensemble=[{columns: {logits: z}, revision: x}]"], "no revision beside columns"),
    ],
)
def test_answers_that_do_not_go_with_an_ensemble_are_refused(place, changes, message):
    """Prevents a member that is dropped in silence, or a traceback hours later."""
    command = place.command(*changes)
    with pytest.raises(UserError, match=message):
        preflight.validate_plan(RunPlan.of(load_recipe(command[0], command[1:]), "tiny"))
