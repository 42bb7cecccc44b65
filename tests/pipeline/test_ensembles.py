"""Runs with several teachers: each is scored once, alone and left out; what cannot be mixed is told before."""

import pytest
import torch
import transformers
from datasets import load_dataset

from distil_nlp.errors import UserError
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.predictor import Predictor
from distil_nlp.recipe import dump_recipe, load_recipe
from distil_nlp.teachers.mixing import Mixing
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Reports take seconds."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture
def place(tmp_path):
    """A place with two further teachers, of other depths and widths."""
    place = Place(tmp_path).prepare()
    for number, folder in enumerate(("teacher", "t1", "t2")):
        model = tiny.classifier((4, 2, 4)[number], seed=number, hidden_size=(32, 16, 64)[number])
        model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
        model.classifier.weight.data.mul_(200)  # which tells rows apart
        model.classifier.bias.data.copy_(-logits_of(model, place.texts[:9]).median(0).values)
        model.save_pretrained(tmp_path / folder)
        tiny.tokenizer().save_pretrained(tmp_path / folder)
    return place


@torch.no_grad()
def logits_of(model, texts):
    return torch.cat([model(**tiny.tokenizer()(text, return_tensors="pt")).logits for text in texts])


def further(place):
    return f"teacher.ensemble=[{place.folder / 't1'}, {{name: {place.folder / 't2'}, weight: 2}}]"


def evaluated(place, folder):
    """Return (logits of the evaluation rows, parameters) of a model, as plain transformers gives them."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place.folder / folder)
    size = sum(parameter.numel() for parameter in model.parameters())
    return logits_of(model, load_dataset(str(place.folder / "data"))["test"]["text"]), size


def accuracy(logits, labels):
    return (logits.argmax(-1) == labels).float().mean().item()


@pytest.mark.parametrize("weighting", ["correctness", "student_uncertainty"])
def test_each_teacher_is_scored_once_alone_and_left_out(place, monkeypatch, weighting):
    """Prevents scores of another teacher or mixture, a second forward for them, and weights that are not the rows'."""
    predicted, predict = [], Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda *args, **kept: predicted.append(args[2]) or predict(*args, **kept))
    options = [f"teacher.weighting={weighting}", "teacher.mix=probabilities", "teacher.weight=0.5"]
    assert place.run(further(place), *options) == 0
    assert sum(role.startswith("teacher") for role in predicted) == 3
    teacher = place.results["teacher"]
    assert teacher["ensemble"] == [str(place.folder / name) for name in ("t1", "t2")]
    assert [one["weight"] for one in teacher["members"]] == [0.5, 1.0, 2.0]
    logits, sizes = zip(*(evaluated(place, folder) for folder in ("teacher", "t1", "t2")), strict=True)
    mixing = Mixing((0.5, 1.0, 2.0), "probabilities", weighting, sizes)
    labels = torch.tensor(load_dataset(str(place.folder / "data"))["test"]["label"])
    student = evaluated(place, "run/student")[0]
    weights = mixing.row_weights(logits, labels, student)
    assert len({accuracy(one, labels) for one in logits}) > 1
    assert teacher["metrics"]["accuracy"] == pytest.approx(accuracy(mixing.mixed(logits), labels))
    for number, member in enumerate(teacher["members"]):
        others = [other for other in range(3) if other != number]
        without = mixing.of(others).mixed([logits[other] for other in others])
        assert member["metrics"]["accuracy"] == pytest.approx(accuracy(logits[number], labels))
        assert member["without"]["metrics"]["accuracy"] == pytest.approx(accuracy(without, labels))
        assert member["interval"]["mean"] == pytest.approx(member["metrics"]["accuracy"])
        assert member["row_weights"]["mean"] == pytest.approx(weights[number].mean().item(), abs=1e-4)
        assert sum(member["row_weights"]["counts"]) == len(labels)
    card = (place.out / "student" / "README.md").read_text()
    assert "an ensemble of 3 teachers" in card
    assert "probabilities were averaged, with weights 0.5, 1, 2, in each row weighted by" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["teacher.mix=probabilities"], "data.task=classification reads / got teacher.mix too"),
        (["teacher.weight=2"], "got teacher.weight too"),
        (["{further}", "teacher.weighting=entropy"], "teacher.weighting: expected 'fixed', 'confidence'"),
        (["{two}", "teacher.weight=0", "teacher.mix=probabilities"], "two teachers with a weight above 0"),
        (["teacher.ensemble=[{name: x, wieght: 2}]"], "teacher.ensemble.wieght: unknown key; did you mean weight?"),
        (["teacher.ensemble=[{name: x, weight: -1}]"], "teacher.ensemble.weight: expected greater than or equal to 0"),
        (["teacher.ensemble=[{revision: main}]"], "teacher.ensemble: expected a teacher with a name, or with columns"),
        (
            ["{further}", "teacher.mix=probabilities", "objective.soft_target_kl.by_confidence=true"],
            "soft_target_kl.by_confidence: expected false with teacher.mix=probabilities",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_told_before_anything_is_loaded(place, capsys, options, message):
    """Prevents a setting without effect, and an error after the teachers were fine-tuned."""
    known = {"{further}": further(place), "{two}": f"teacher.ensemble=[{place.folder / 't1'}]"}
    assert place.run(*(known.get(option, option) for option in options)) == 2
    assert message in one_line(capsys.readouterr().err)
    assert not place.out.exists()


def test_plain_names_stay_plain(place):
    """Prevents recipes of earlier runs that are taken for others: their fingerprint is of the short form."""
    path = place.command()[0]
    recipe = load_recipe(path, ["teacher.ensemble=[a/b, {name: c/d}, {name: e/f, weight: 2, revision: v1}]"])
    assert recipe.model_dump(mode="json")["teacher"]["ensemble"] == [
        "a/b",
        "c/d",
        {"name": "e/f", "revision": "v1", "weight": 2.0},
    ]
    (place.folder / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(place.folder / "again.yaml") == recipe


def test_paths_and_secrets_of_further_teachers_are_read_as_the_firsts(place, monkeypatch):
    """Prevents a home folder that is no path, and a token in a recipe that is published."""
    monkeypatch.setenv("HOME", str(place.folder))
    recipe = load_recipe(place.command()[0], ["teacher.ensemble=[{name: ~/t1}]"])
    assert recipe.teacher.ensemble[0].name == str(place.folder / "t1")
    with pytest.raises(UserError, match=r"teacher\.ensemble\.revision: expected no token"):
        load_recipe(place.command()[0], ["teacher.ensemble=[{name: a, revision: " + "hf_" + 34 * "a" + "}]"])
