"""Runs whose student is cut from the important parts of its teacher, through the command line."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from distil_nlp.pipeline.outputs import drawn_loss
from distil_nlp.tasks import KINDS
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def pruned(place, *overrides):
    folder = f"folder: {place.folder / 'importance'}"
    return place.run("student.num_layers=2", *overrides[1:], f"student.pruning={{{overrides[0]}, {folder}}}")


def test_a_pruned_student_goes_through_a_whole_run(place, capsys):
    """Prevents a student that is cut and not told, and importance that is measured again for each seed."""
    options = "feed_forward: 0.5, rows: 16"
    assert (
        pruned(place, options, "student.layers=important", "evaluation.seeds=2", "evaluation.baselines=[random_init]")
        == 0
    )
    results = place.results
    block = results["student"]["initialisation"]["pruning"]
    assert (block["feed_forward"], block["heads"], block["width"]) == (32, 4, 32)
    assert block["of"] == {"feed_forward": 64, "heads": 4, "width": 32}
    assert block["cut"].keys() == results["baselines"]["copied_only"]["metrics"].keys()
    assert block["repaired_on"] > 0
    student = AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    assert student.config.intermediate_size == 32
    assert len(list((place.folder / "importance").iterdir())) == 1
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        said,
        (place.out / "report" / "report.md").read_text(),
        (place.out / "student" / "README.md").read_text(),
    ):
        assert "32 of 64 feed-forward units" in " ".join(text.split())


def test_half_the_width_trains_beside_the_whole_teacher(place):
    """Prevents terms on states of another width from being paired as they are."""
    options = ("objective.hidden_cosine=null", "objective.attention_kl=null", "objective.hidden_mse={weight: 1.0}")
    assert pruned(place, "width: 0.5, rows: 8, repair: false, importance: activation", *options) == 0
    block = place.results["student"]["initialisation"]["pruning"]
    assert (block["heads"], block["width"]) == (2, 16)
    assert "cut" not in block


def test_a_stopped_run_builds_the_same_student_again(place):
    """Prevents a resumed run from other weights."""
    assert pruned(place, "feed_forward: 0.5, rows: 16") == 0
    one = AutoModelForSequenceClassification.from_pretrained(place.out / "student").state_dict()
    assert pruned(place, "feed_forward: 0.5, rows: 16", "run.overwrite=true") == 0
    other = AutoModelForSequenceClassification.from_pretrained(place.out / "student").state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("feed_forward: 0",), "student.pruning.feed_forward"),
        (("width: 1.5",), "student.pruning.width"),
        (("heads: 0.5",), "student.pruning.heads"),
        (("importance: hessian",), "student.pruning.importance"),
        (("width: 0.5", "student.config={hidden_size: 16}"), "student.config.hidden_size too"),
        (("width: 0.5", "student.replacing={}"), "student.replacing too"),
        (("width: 0.5", "student.peers=2"), "student.peers too"),
        (("rows: 8", "student.layers=important", "student.num_layers=9"), "at most 4, the teacher's layers"),
    ],
)
def test_what_cannot_be_cut_is_refused(place, overrides, message, capsys):
    """Prevents a traceback, and a key that has no effect."""
    assert pruned(place, *overrides) != 0
    assert message in one_line(capsys.readouterr().err)
    assert not (place.out / "student").exists()


@pytest.mark.parametrize("name", KINDS)
def test_a_drawn_loss_is_fisher_information_of_the_outputs(name):
    """Prevents a loss whose squared gradient is not the information of that kind's distribution, by many draws."""
    kind, shape = KINDS[name], {"spans": (1, 3, 2)}.get(KINDS[name].output, (1, 3))
    torch.manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    batch = {"attention_mask": torch.ones(1, 3)}
    found = torch.zeros_like(logits)
    draws = 4000
    for _ in range(draws):
        found += torch.autograd.grad(drawn_loss(logits, kind, batch), logits)[0].square() / draws
    p = logits.detach().softmax(1)
    expected = {"labels": logits.detach().sigmoid() * (1 - logits.detach().sigmoid())}.get(kind.output, p * (1 - p))
    if kind.output not in ("distribution", "labels", "spans"):
        expected = torch.ones_like(found)
    torch.testing.assert_close(found, expected, rtol=0.15, atol=0.02)
