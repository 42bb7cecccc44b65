"""Teachers that know no more than a guess, or whose classes fit the labels in another order."""

import re

import numpy as np
import pytest

from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models import ClassMapping
from distil_nlp.pipeline.teacher_check import TeacherCheck
from distil_nlp.reporting.report.advice import advice
from distil_nlp.results import RunResults
from distil_nlp.tasks import TASKS
from distil_nlp.tasks.class_order import better_order
from tests.helpers.runs import Place
from tests.helpers.showcase import example

pytestmark = pytest.mark.integration

BY_NUMBER = ClassMapping((0, 1), ("LABEL_0", "LABEL_1"), ("sad", "very happy"), "number")
LABELS = np.arange(40) % 2
RIGHT, WRONG = np.eye(2)[LABELS], np.eye(2)[1 - LABELS]


def check(predictions, labels, floor, *, task="classification", mapping=BY_NUMBER, is_finetuned=False):
    metric = TASKS[task].headline
    outputs = {"test": Outputs(np.asarray(predictions, dtype=float), np.asarray(labels))}
    return TeacherCheck("mine", TASKS[task].kind, task, outputs, {metric: floor}, mapping, is_finetuned)


# Another order --------------------------------------------------------------------------------------------------

MNLI = [[12, 0, 0], [0, 21, 0], [27, 0, 0]]
"""A teacher that calls two classes by one name: in the order of its training 48 of 60 are right, not 33."""


@pytest.mark.parametrize(
    ("confusion", "is_told", "order"),
    [
        ([[0, 20], [20, 0]], False, (1, 0)),
        ([[0, 20], [20, 0]], True, (1, 0)),
        (MNLI, False, (2, 1, 0)),
        (MNLI, True, None),  # names are evidence too
        ([[40, 0], [0, 40]], False, None),
        ([[30, 10], [10, 30]], False, None),
        ([[0, 40], [0, 60]], False, None),  # always the same class: no order is better
        ([[40, 0], [60, 0]], False, None),
        ([[0, 3], [3, 0]], True, None),  # too few rows
        ([[9, 11], [11, 9]], False, None),
        ([[0, 0, 0], [0, 0, 30], [0, 30, 0]], True, (0, 2, 1)),  # a class without rows stays
        ([[0, 0], [0, 0]], False, None),
    ],
)
def test_another_order_is_found_beyond_chance_alone(confusion, is_told, order):
    """Prevents a false alarm by the best of many orders on a few rows, and silence where classes are exchanged."""
    assert better_order(np.array(confusion), is_told) == order


@pytest.mark.parametrize(("accuracy", "most"), [(0.0, 0.03), (0.6, 0.0)])
def test_false_alarms_are_rare(accuracy, most):
    """Prevents warnings about good teachers; of those that only guess, some must look like another order."""
    generator, alarms = np.random.default_rng(1), 0
    for _ in range(300):
        classes, rows = generator.choice([2, 3, 6]), generator.choice([20, 60, 300])
        labels = generator.choice(classes, rows)
        guesses = np.where(generator.random(rows) < accuracy, labels, generator.choice(classes, rows))
        confusion = np.zeros((classes, classes), int)
        np.add.at(confusion, (labels, guesses), 1)
        alarms += better_order(confusion, False) is not None
    assert alarms <= most * 300


# No better than a guess -----------------------------------------------------------------------------------------

SHUFFLED = np.eye(2)[LABELS * 0]
WEAK = {
    "classes exchanged": (check(WRONG, LABELS, 0.5), "as very happy, sad it would score accuracy 1.000 instead of"),
    "one class for all": (check(SHUFFLED, LABELS, 0.5), "expected accuracy above 0.500 on test.*majority class.*0.500"),
    "fine-tuned here": (check(SHUFFLED, LABELS, 0.5, mapping=None, is_finetuned=True), "train it longer"),
    "F1": (check(WRONG, LABELS, 0.67, task="mrpc"), "expected f1 above 0.670"),
    "no correlation": (
        check(-np.arange(9.0)[:, None], np.arange(9.0), float("nan"), task="stsb", mapping=None),
        "expected pearson above 0.000",
    ),
    "a constant number": (
        check(np.ones((9, 1)), np.arange(9.0), float("nan"), task="stsb", mapping=None),
        "got nan of mine",
    ),
}


@pytest.mark.parametrize("name", WEAK)
@pytest.mark.filterwarnings("ignore")
def test_a_teacher_that_guesses_stops_the_run(name, capsys):
    """Prevents hours in which a student learns nothing, or the contrary of the labels."""
    weak, message = WEAK[name]
    with pytest.raises(UserError, match=f"{message}.*run.accept_weak_teacher=true"):
        weak.run(accepts_weak=False)
    weak.run(accepts_weak=True)
    assert "warning: teacher: expected" in capsys.readouterr().out


def test_a_language_model_is_warned_of_alone(capsys):
    """Prevents a stop where there are no classes: a model of other text may be behind the token frequencies of this."""
    check([[9.0, 1, 10]] * 4, [0] * 4, 0.3, task="mlm", mapping=None).run(accepts_weak=False)
    assert re.search("warning: teacher: .*unigram model.*got 0.100", capsys.readouterr().out)


def test_the_setting_of_another_order_can_be_typed(capsys):
    """Prevents a command that the shell takes apart at a space in a name."""
    with pytest.raises(UserError, match=r"set 'data\.label_names=\[very happy, sad\]' if that is right"):
        check(WRONG, LABELS, 0.5).run(accepts_weak=False)
    by_name = ClassMapping((1, 0), ("very happy", "sad"), ("sad", "very happy"), "names")
    with pytest.raises(UserError, match=r"by their names.*data\.label_names=\[sad, very happy\]"):
        check(WRONG, LABELS, 0.5, mapping=by_name).run(accepts_weak=False)


def test_a_teacher_above_the_floor_is_warned_of_alone(capsys):
    """Prevents MNLI's 0.550 instead of 0.800: above the floor of 0.450, and half of it taught as another class."""
    mapping = ClassMapping((0, 1, 2), ("LABEL_0", "LABEL_1", "LABEL_2"), ("e", "n", "c"), "number")
    cells = [(truth, guess) for truth, row in enumerate(MNLI) for guess, count in enumerate(row) for _ in range(count)]
    labels, guesses = np.array(cells).T
    check(np.eye(3)[guesses], labels, 0.45, mapping=mapping).run(accepts_weak=False)
    said = capsys.readouterr().out
    assert "as c, n, e it would score accuracy 0.800 instead of 0.550" in said
    assert "set 'data.label_names=[c, n, e]'" in said


@pytest.mark.parametrize(
    "good", [check(RIGHT, LABELS, 0.5), check(SHUFFLED, LABELS * 0, 1.0), check(WRONG, LABELS * 0, 1.0)]
)
def test_a_good_teacher_is_passed_in_silence(good, capsys):
    """Prevents a stop where rows of one class cannot tell: a guess is always right there."""
    good.run(accepts_weak=False)
    assert not capsys.readouterr().out


# Runs and reports -----------------------------------------------------------------------------------------------


def test_a_run_stops_before_training(tmp_path, capsys):
    """Prevents a check after the training, one that a further teacher of an ensemble escapes, and a claimed folder."""
    place = Place(tmp_path).prepare()
    for further in ((), (f"teacher.ensemble=[{tmp_path / 'teacher'}]",)):
        assert place.run("run.accept_weak_teacher=false", *further) == 2
        assert "run.accept_weak_teacher=true takes it as it is" in capsys.readouterr().err
        assert not place.out.exists()


@pytest.mark.parametrize(
    ("own", "said", "code"),
    [
        (None, "no better than the majority class", "finetune.num_train_epochs"),
        (["equivalent", "not_equivalent"], "in another order", "[not_equivalent, equivalent]"),
        (["not_equivalent", "equivalent"], "in another order", "[equivalent, not_equivalent]"),
    ],
)
def test_advice_is_not_to_train_longer_where_classes_are_exchanged(tmp_path, own, said, code):
    """Prevents the wrong diagnosis: a teacher far below the majority class knows the classes, under other names."""
    results = example() | {"labels": ["not_equivalent", "equivalent"]}
    results["teacher"]["metrics"]["f1"] = 0.1
    results["recipe"]["teacher"]["finetune"] = None
    if own:
        results["teacher"]["classes"] = {"names": own, "told": "number"}
        results["fidelity"]["confusion"]["teacher"] = [[2, 98], [198, 2]]
    first = advice(RunResults("mine", tmp_path, results))[0]
    assert said in first.text
    assert code in first.code
