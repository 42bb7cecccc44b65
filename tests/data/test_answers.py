"""Columns of answers, read as a teacher's outputs."""

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from distil_nlp.data import AnswerColumns, TaskCollator
from distil_nlp.data.answers import LEAST_PROBABILITY, AnswerTask
from distil_nlp.data.row_sets import ANSWERS, RowCollator, RowSets
from distil_nlp.data.sequences import label_reader, load_task
from distil_nlp.errors import UserError
from distil_nlp.tasks import KINDS, TASKS
from distil_nlp.tasks.kind import ANSWERED
from tests.helpers import tiny

NAN = float("nan")
LABELS = ("bad", "good", "so-so")


def task(kind="classification", labels=LABELS, size=None):
    return AnswerTask(KINDS[kind], labels, size or len(labels), label_reader(kind))


def read(columns, answers, of=None):
    """The outputs that columns of answers stand for."""
    return answers.logits(Dataset.from_dict(columns), "train", of or task())


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


ROWS = [[0.2, 0.5, 0.3], None, [0.0, 1.0, 0.0]]
BY_NAME = {"g": [0.5, None, 1.0], "b": [0.2, None, 0.0], "s": [0.3, None, 0.0]}


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"p": ROWS}, "p"),
        (BY_NAME, ["b", "g", "s"]),
        (BY_NAME, {"good": "g", "so-so": "s", "bad": "b"}),
        ({"p": [row and dict(zip(("so-so", "good", "bad"), row[::-1], strict=True)) for row in ROWS]}, "p"),
    ],
)
def test_every_form_of_probabilities_is_the_same_distribution_in_the_datas_order(columns, named):
    """Prevents one class's probability as another's: lists, columns in order, columns by name, dicts by name."""
    if named == "p" and isinstance(columns["p"][0], dict):  # its third class comes first
        columns = {
            "p": [row and {"so-so": row["so-so"], "good": row["good"], "bad": row["bad"]} for row in columns["p"]]
        }
    found = read(columns, AnswerColumns("probabilities", named))
    assert np.isnan(found[1]).all()
    assert softmax(found[[0, 2]]) == pytest.approx(np.array([[0.2, 0.5, 0.3], [0, 1, 0]]), abs=1e-9)
    assert found[2].min() == pytest.approx(math.log(LEAST_PROBABILITY))


def test_rounded_probabilities_are_divided_by_their_sum():
    """Prevents a refusal of answers with two digits, and a distribution that sums to 0.99."""
    found = read({"p": [[0.33, 0.33, 0.33]]}, AnswerColumns("probabilities", "p"))
    assert found == pytest.approx(np.full((1, 3), math.log(1 / 3)))


def test_logits_and_scores_are_read_as_they_are():
    """Prevents logits that are taken for probabilities, and a regression with a softmax."""
    assert read({"z": [[3.0, -2.0, 0.5]]}, AnswerColumns("logits", "z")).tolist() == [[3.0, -2.0, 0.5]]
    number = task("regression", None, 1)
    found = read({"s": [3.5, None, NAN]}, AnswerColumns("scores", "s"), number)
    assert found[0].tolist() == [3.5]
    assert np.isnan(found[1:]).all()


def test_independent_labels_have_logits_of_their_own():
    """Prevents probabilities of labels that are divided by their sum."""
    found = read({"p": [[0.9, 0.5, 0.2], [1.0, 0.0, 0.5]]}, AnswerColumns("probabilities", "p"), task("multilabel"))
    assert found[0] == pytest.approx([math.log(9), 0, math.log(0.25)])
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [("c", [[0.1, 0.8, 0.1], [0.35, 0.35, 0.3]]), (0.9, [[0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])],
)
def test_a_label_has_its_confidence_and_the_others_share_the_rest(confidence, expected):
    """Prevents a one-hot target where the answer was unsure, and a label without a confidence that is certain."""
    columns = {"a": ["good", "so-so", None, "bad"], "c": [0.8, 0.3, 0.9, None]}
    found = read(columns, AnswerColumns("label", "a", confidence))
    assert softmax(found[:2]) == pytest.approx(np.array(expected))
    assert np.isnan(found[2]).all()
    assert np.isnan(found[3]).all() == (confidence == "c")


def test_ids_of_another_order_are_read_by_their_names():
    """Prevents a ClassLabel of the answers whose numbers are not the data's."""
    rows = Dataset.from_dict({"a": [0, 1]}).cast_column("a", ClassLabel(names=["so-so", "bad"]))
    found = AnswerColumns("label", "a", 1.0).logits(rows, "train", task())
    assert found.argmax(1).tolist() == [2, 0]
    numbers = AnswerColumns("label", "a").logits(Dataset.from_dict({"a": [2, 0]}), "train", task(labels=None, size=3))
    assert numbers.argmax(1).tolist() == [2, 0]


PROBABILITIES, LABEL = AnswerColumns("probabilities", "p"), AnswerColumns("label", "a", "c")


@pytest.mark.parametrize(
    ("columns", "answers", "message"),
    [
        ({"p": [[0.2, 0.5, 0.3], [0.2, 0.5, 0.2]]}, PROBABILITIES, r"1 of 2 rows .*\[0.2, 0.5, 0.2\] with 0.9"),
        ({"p": [[0.2, -0.1, 0.9]]}, PROBABILITIES, "numbers from 0 to 1 .* teacher.columns.logits"),
        ({"p": [[20.0, 50.0, 30.0]]}, PROBABILITIES, "divide them by 100"),
        ({"p": [[0.2, float("inf"), 0.3]]}, PROBABILITIES, "finite numbers"),
        ({"p": [["0.2", "0.5", "0.3"]]}, PROBABILITIES, "finite numbers"),
        ({"p": [[0.5, 0.5]]}, PROBABILITIES, "3 numbers in a row, one for each of bad, good, so-so"),
        ({"p": [[]]}, PROBABILITIES, "3 numbers in a row"),
        ({"p": [[0.2, None, 0.3]]}, PROBABILITIES, "null for all of them"),
        ({"p": [0.7]}, PROBABILITIES, "name a column for each class"),
        ({"p": ["[0.2, 0.5, 0.3]"]}, PROBABILITIES, "name a column for each class"),
        ({"p": [{"bad": 0.5, "fine": 0.5}]}, PROBABILITIES, "the classes bad, good, so-so / got bad, fine"),
        (BY_NAME, AnswerColumns("probabilities", {"bad": "b", "good": "g"}), "got bad, good"),
        (BY_NAME, AnswerColumns("probabilities", ["b", "g"]), "a column for each of 3 classes"),
        ({"s": [1.0]}, AnswerColumns("scores", "s"), "probabilities or logits or label for classification"),
        ({"a": ["fine"], "c": [0.8]}, LABEL, "spell them as the data does"),
        ({"a": [7], "c": [0.8]}, LABEL, "labels from 0 to 2"),
        ({"a": ["good"], "c": [80.0]}, LABEL, "divide them by 100"),
        ({"a": ["good"], "c": [-0.5]}, LABEL, "numbers above 0, at most 1"),
    ],
)
def test_answers_that_cannot_be_read_are_refused_in_words(columns, answers, message):
    """Prevents a student of percentages, of half an answer, of another task's classes."""
    with pytest.raises(UserError, match=message):
        read(columns, answers)


def splits(**columns):
    texts = [f"the {word} {i}" for i, word in enumerate(["cat", "dog"] * 20)]
    train = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(40)], **columns})
    return DatasetDict(train=train, test=train.select_columns(["text", "label"]).select(range(6)))


def test_answers_stay_with_their_rows_where_rows_are_drawn_and_split_off():
    """Prevents the answers of the first rows for rows that were drawn; evaluation rows without columns have NaN."""
    own = TASKS["classification"]
    own = own.__class__(**{**vars(own), "text_columns": ("text",), "label_column": "label"})
    found = load_task(
        splits(z=[[float(i), -float(i)] for i in range(40)], price=[0.5] * 40), tiny.tokenizer(), own,
        max_train_rows=30, selection_share=0.2, answers=AnswerColumns("logits", "z", price="price"),
    )  # fmt: skip
    numbers = [row[ANSWERS][0] for rows in (found.split.train, found.split.selection) for row in rows]
    assert len(set(numbers)) == 30
    for rows in (found.split.train, found.split.selection):
        assert [int(row[ANSWERS][0]) % 2 for row in rows] == list(rows["labels"])
    assert np.isnan(found.split.evaluation["test"][ANSWERS][:]).all()
    assert found.split.price == 15.0


@pytest.mark.parametrize(
    ("columns", "answers", "message"),
    [
        ({}, AnswerColumns("logits", "z"), "columns z in train"),
        ({"z": [[0.0, 1.0]] * 40}, AnswerColumns("logits", "z", price="cost"), "cost cannot be read"),
        (
            {"z": [[0.0, 1.0]] * 40, "cost": ["much"] * 40},
            AnswerColumns("logits", "z", price="cost"),
            "cannot be summed",
        ),
    ],
)
def test_columns_that_are_not_there_are_refused(columns, answers, message):
    """Prevents training rows without a teacher, and a price of 0."""
    own = TASKS["classification"]
    own = own.__class__(**{**vars(own), "text_columns": ("text",), "label_column": "label"})
    with pytest.raises(UserError, match=message):
        load_task(splits(**columns), tiny.tokenizer(), own, answers=answers)


def test_row_sets_leave_out_rows_without_an_answer_and_fillers():
    """Prevents a divisor that counts rows which teach nothing."""
    names = frozenset({f"{ANSWERED}sequences", f"{ANSWERED}labelled", "labelled"})
    collate = RowCollator(TaskCollator(tiny.tokenizer(), "classification"), RowSets("classification", names, names),
                          frozenset({"input_ids", "labels", ANSWERS}))  # fmt: skip
    rows = [
        {"input_ids": [2, 5, 3], "labels": label, ANSWERS: answer, "filler": filler}
        for label, answer, filler in (
            (1, [1.0, 2.0], False), (0, [NAN, NAN], False), (-100, [0.0, 1.0], False), (1, [1.0, 2.0], True)
        )
    ]  # fmt: skip
    batch = collate(rows)
    assert {name: batch["rows"][name].tolist() for name in names} == {
        f"{ANSWERED}sequences": [0, 2], f"{ANSWERED}labelled": [0], "labelled": [0, 1],
    }  # fmt: skip
    assert batch[ANSWERS].shape == (4, 2)
