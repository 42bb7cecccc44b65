"""A kind of task that the package does not know: one file in each of three packages, and one line in a table."""

import dataclasses
import sys
from types import ModuleType

import numpy as np
import pytest

from distil_nlp.data import sequence_classification as data_of_classes
from distil_nlp.evaluation.sequence_classification import ClassificationEvaluator
from distil_nlp.losses.registry import TERMS
from distil_nlp.tasks import CUSTOM_TASKS, KINDS, TASKS, Task
from distil_nlp.tasks.sequence_classification import CLASSIFICATION
from tests.helpers.runs import Place

TONE = dataclasses.replace(
    CLASSIFICATION,
    name="tone",
    module="tone",
    headline="right",
    majority_name="commonest tone",
    metric_names=(("right", "fraction of right tones"),),
    predicted="tone",
    purpose="telling the tone of a text",
    hub_tags=("tone",),
)
"""Classes again, under other names and with another metric."""


class ToneEvaluator(ClassificationEvaluator):
    """One metric, which no other kind has."""

    def metric_names(self, task):
        return ["right"]

    def metrics(self, task):
        return lambda outputs: {"right": float(np.mean(outputs.predictions.argmax(-1) == outputs.label_ids))}

    def majority_of_labels(self, task, train_labels, references):
        return {"right": float(np.mean(np.asarray(references) == np.bincount(train_labels).argmax()))}

    def resampling(self, metric):
        return super().resampling("accuracy")


@pytest.fixture
def tone(monkeypatch):
    """The three files, and the line in the table."""
    data, evaluation = ModuleType("data"), ModuleType("evaluation")
    data.load, data.labelled_rows, data.LABELS = (
        data_of_classes.load,
        data_of_classes.labelled_rows,
        data_of_classes.LABELS,
    )
    evaluation.EVALUATOR = ToneEvaluator()
    monkeypatch.setitem(sys.modules, "distil_nlp.data.tone", data)
    monkeypatch.setitem(sys.modules, "distil_nlp.evaluation.tone", evaluation)
    monkeypatch.setitem(KINDS, "tone", TONE)
    task = Task("tone", ("text",), (), TONE.headline, TONE, TONE.evaluation_splits)
    monkeypatch.setitem(CUSTOM_TASKS, "tone", task)  # made from the line in `KINDS` where that is in the file
    monkeypatch.setitem(TASKS, "tone", task)


@pytest.mark.with_pictures
def test_a_new_kind_goes_through_a_whole_run(tone, tmp_path, capsys):
    """Prevents a branch on the kinds that there are: data, terms, students, scores, intervals, report and card."""
    place = Place(tmp_path).prepare()
    assert place.run("data.task=tone", "evaluation.baselines=[no_distillation]", "evaluation.seeds=2") == 0
    results = place.results
    assert results["task"] == "tone"
    assert results["headline"] == "right"
    assert results["student"]["metrics"].keys() == {"right"}
    assert results["baselines"]["majority"]["metrics"].keys() == {"right"}
    assert results["baselines"]["no_distillation"]["gain"]["metric"] == "right"
    assert results["retention"] == pytest.approx(
        results["seeds"]["right"]["median"] / results["teacher"]["metrics"]["right"]
    )
    assert "fraction of right tones" in capsys.readouterr().out
    report, card = (place.out / path for path in ("report/report.md", "student/README.md"))
    assert "commonest tone" in report.read_text()
    assert "telling the tone of a text" in card.read_text()


def test_terms_follow_the_output_of_a_new_kind(tone):
    """Prevents a list of kinds in each loss, to be made longer with every new one."""
    for term in TERMS.values():
        assert ("tone" in term.kinds()) == ("classification" in term.kinds())
