"""Runs with sparsity and quantisation-aware training: what they leave and tell, and which recipes are refused."""

import json

import pytest
from transformers import AutoModelForSequenceClassification

from distil_nlp.cli import check
from distil_nlp.models.linear_layers import count_zeros
from distil_nlp.training.sparsity import SPARSITY
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("sparsity")).prepare()


@pytest.mark.integration
def test_a_run_tells_the_zeros_that_its_student_has(place):
    """Prevents zeros in the log alone, or that the saved student does not have."""
    overrides = ["student.sparsity={pattern: '2:4', by: movement}", "student.quantization={}", "training.max_steps=6"]
    assert place.run(*overrides, "evaluation.baselines=[plain]", "run.overwrite=true") == 0
    results = place.results
    student = AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    found = results["student"]["sparsity"]
    assert found == count_zeros(student, SPARSITY)
    assert 0.5 <= found["zeros"] < 0.6
    assert [one["key"] for one in results["schemes"]["used"]] == ["student.sparsity", "student.quantization"]
    report, card = ((place.out / name).read_text() for name in ("report/report.md", "student/README.md"))
    for page in (report, card):
        text = " ".join(page.split())
        assert "(2:4: all but 2 of 4 neighbours)" in text
        assert "arXiv:2005.07683" in text
        assert "it is no faster" in text
        assert "of its blocks’ linear layers 5" in text
        assert "computed with int8 weights and uint8 inputs" in text
    assert "masks" not in json.dumps([path.name for path in (place.out / "student").iterdir()])


ON_OUTPUTS = ["objective.hidden_cosine.weight=0", "objective.attention_kl.weight=0"]
REFUSED = {
    "all": (["student.sparsity=1.0"], "student.sparsity"),
    "none": (["student.sparsity={}"], "one of share"),
    "both": (["student.sparsity={share: 0.5, pattern: '2:4'}"], "one of share"),
    "pattern": (["student.sparsity={pattern: '4:2'}"], "N below M"),
    "end": (["student.sparsity={share: 0.5, start: 0.7}"], "a start below the end"),
    "width": (["student.sparsity={pattern: '2:5'}"], "multiples of 5 / got 32"),
    "peers": (["student.sparsity=0.5", "student.peers=2", *ON_OUTPUTS], "no student.peers beside it"),
    "branches": (["student.quantization={}", "student.branches=2", *ON_OUTPUTS], "no student.branches beside it"),
    "augment": (["student.quantization={}", "student.augment={}"], "got student.augment"),
    "weights": (["student.sparsity=0.5", "objective.weights_mse.weight=1"], "got objective.weights_mse"),
    "bits": (
        ["student.quantization={}", "export.reduce_range=true"],
        "export.reduce_range, true / got false",
    ),
    "start": (["student.quantization={start: 1}"], "student.quantization"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_recipes_that_cannot_hold_are_refused(place, capsys, case):
    """Prevents a run that fails, or trains something else, after its teacher was trained."""
    overrides, message = REFUSED[case]
    assert check(place.command(*overrides)) == 2
    assert message in one_line(capsys.readouterr().err)


def test_a_check_says_what_becomes_of_the_weights(place, capsys):
    """Prevents a key whose effect nobody is told before the run."""
    overrides = ["student.sparsity=0.25", "student.quantization={reduce_range: true}", "run.overwrite=true"]
    assert check(place.command(*overrides)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "25 % of the weights became zero between 10 and 70 % of training" in shown
    assert "int8 weights of 7 bits" in shown
