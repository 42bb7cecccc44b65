"""Whether a student under-fits: the loss that is measured for it, and the advice that depends on it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.underfitting import mean_loss, sample_of_training_rows
from distil_nlp.reporting.schemes import scheme_sentences
from distil_nlp.reporting.verdicts import verdicts
from distil_nlp.results import RunResults
from tests.helpers import tiny
from tests.helpers.runs import Place


def test_the_loss_is_that_of_torch():
    """Prevents sums for means, rows without a label, and squared errors of classes."""
    logits, labels = np.random.default_rng(0).normal(size=(5, 2)), np.array([0, 1, 1, -100, 0])
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert mean_loss("mrpc", Outputs(logits, labels)) == pytest.approx(float(expected))
    numbers, truth = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 4.0, 3.0])
    assert mean_loss("stsb", Outputs(numbers, truth)) == pytest.approx(5 / 3)
    sums = np.array([[6.0, 1, 4], [2.0, 0, 4]])  # loss, correct and masked tokens of two blocks
    assert mean_loss("mlm", Outputs(sums, np.zeros(2))) == pytest.approx(1.0)


def test_rows_are_a_fixed_sample_of_those_with_labels():
    """Prevents a sample of the first rows, one that changes, and an error for streams."""
    rows = Dataset.from_dict({"row": range(2000)})
    data = SimpleNamespace(kind=SimpleNamespace(has_labels=True), num_labelled=2000, labelled=lambda: rows)
    sample = sample_of_training_rows(data)["row"][:]
    assert len(sample) == 512 == len(set(sample))
    assert max(sample) > 1900
    assert sample == sample_of_training_rows(data)["row"][:]
    data.num_labelled = 0
    assert sample_of_training_rows(data) is None
    stream = SimpleNamespace(kind=SimpleNamespace(has_labels=False), labelled=lambda: rows.to_iterable_dataset())
    assert sample_of_training_rows(stream) is None


@pytest.mark.parametrize(("student", "warns"), [(0.5, False), (0.22, True), (0.1, True)])
def test_a_student_that_does_not_under_fit_is_told(tmp_path, student, warns):
    """Prevents advice that is never given, or given to every student."""
    results = {
        "task": "mrpc",
        "headline": "f1",
        "schemes": {"used": [], "train_loss": {"rows": 512, "teacher": 0.2, "student": student}},
    }
    run = RunResults("run", tmp_path, results)
    assert any("does not under-fit" in verdict.text for verdict in verdicts(run)) is warns
    assert scheme_sentences(run)[-1] == f"On 512 training rows its loss is {student:.3f}, the teacher’s 0.200."


@pytest.mark.integration
def test_a_run_measures_it_and_saves_the_student_alone(tmp_path, capsys):
    """Prevents a student folder with extra units, and a loss of something else than the saved student's."""
    place = Place(tmp_path).prepare()
    place.teacher(tiny.classifier(4))
    changes = ["student.config={intermediate_size: 16}", "objective.attention_kl.weight=0"]
    assert place.run("student.augment={ffn: [2], until: 1}", *changes, "evaluation.baselines=[no_distillation]") == 0
    shown = capsys.readouterr().out
    assert "augment: 32 extra units in training, 32 of the teacher’s and 0 drawn" in shown
    block = place.results["schemes"]
    assert block["train_loss"].keys() == {"rows", "teacher", "student"}
    assert "2 times as many units" in block["used"][0]["sentence"]
    assert all("wider_loss" in entry for entry in place.results["training"]["history"])
    student = type(tiny.classifier(1)).from_pretrained(place.out / "student")
    assert student.config.intermediate_size == 16
