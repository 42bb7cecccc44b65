"""Scores of answers: SQuAD's normalisation, the best answer over windows, questions without an answer."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction

from distil_nlp.evaluation.fidelity.agreement import compare_models
from distil_nlp.evaluation.predict import Outputs, predict
from distil_nlp.evaluation.qa import EVALUATOR, best_null_threshold, best_span, nearest_sentence, of_questions
from distil_nlp.evaluation.squad import exact_and_f1, normalize_answer
from distil_nlp.signals.spans import NOT_ALLOWED
from tests.helpers import squad, tiny

LIVELY = {"initializer_range": 0.3}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Walt Disney Company", "walt disney company"),
        ("  an  Apple,  a day! ", "apple day"),
        ("US$3", "us3"),
        ("theatre", "theatre"),
        ("A.B.C.", "abc"),
        ("the-a", "thea"),  # punctuation goes first, as in the official script
        ("", ""),
    ],
)
def test_answers_are_normalised_as_by_the_official_script(text, normal):
    """Prevents articles within words from being cut, and another order of the steps."""
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos", "Broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("in October 1973", ["October 1973", "October", "1973"], 0, 4 / 5),
        ("blue blue red", ["blue red red"], 0, 2 / 3),
        ("Paris", [], 0, 0),
        ("", [], 1, 1),
        ("", ["Paris"], 0, 0),
        ("the", [], 1, 1),
        ("x", ["the", "a"], 0, 0),
    ],
)
def test_exact_match_and_f1_are_the_best_over_right_answers(answer, right, exact, f1):
    """Prevents a mean over annotators, words counted twice, and a score of an answer where there is none."""
    assert exact_and_f1(answer, right) == pytest.approx((exact, f1))


def test_the_best_answer_is_found_as_by_a_search_of_all_pairs():
    """Prevents an end before the start, an answer of 31 tokens, and one outside the context."""
    generator = np.random.default_rng(0)
    for _ in range(40):
        start, end = generator.normal(size=(2, 18))
        inside = np.flatnonzero(generator.random(18) > 0.4)
        pairs = [(start[i] + end[j], i, j) for i in inside for j in inside if i <= j]
        assert best_span(start, end, inside) == pytest.approx(max(pairs))
    start, end = np.zeros(40), np.zeros(40)
    start[0] = end[30] = 5
    assert best_span(start, end, np.arange(40))[2] != 30
    end[29] = 4
    assert best_span(start, end, np.arange(40)) == (9, 0, 29)
    assert best_span(start, end, np.arange(0)) is None


def test_a_question_has_the_best_answer_of_its_windows():
    """Prevents a mean over windows; none is the answer where its lowest score is above all answers."""
    rows = np.array(
        [
            # score, none, exact, f1, checksum, answerable
            [1.0, 0.5, 0, 0.2, 11, 1],
            [3.0, 0.1, 1, 1.0, 12, 1],
            [2.0, 5.0, 0, 0.0, 13, 0],
            [1.0, 2.5, 0, 0.0, 14, 0],
            [2.0, NOT_ALLOWED, 0, 0.5, 15, 1],
        ]
    )
    order = [3, 0, 4, 1, 2]
    numbers = np.array([7, 7, 9, 9, 12])
    found = of_questions(rows[order], numbers[order])
    assert found.tolist() == [[1, 1, 12, 1], [1, 1, 0, 0], [0, 0.5, 15, 1]]
    metrics = EVALUATOR.score("qa_v2", Outputs(rows, numbers))
    assert metrics == pytest.approx(
        {"f1": 2.5 / 3, "exact_match": 2 / 3, "HasAns_f1": 0.75, "HasAns_exact": 0.5, "NoAns_f1": 1.0}
    )
    rows[0, 0] = math.nan
    assert np.isnan(of_questions(rows, numbers)[0]).all()
    features, metric = EVALUATOR.resampling("f1")
    sums = features(Outputs(rows[1:], numbers[1:]))
    assert sums.shape == (3, 2)
    assert metric(sums.sum(0)[None])[0] == pytest.approx(metrics["f1"])


def best_f1_thresh(differences, f1, answerable):
    """Return (best F1, threshold) as `find_best_thresh` of evaluate-v2.0.py finds them, where no text is empty."""
    score = best = float(sum(not one for one in answerable))
    threshold = None  # the script begins with 0.0
    for number in sorted(range(len(f1)), key=lambda i: differences[i]):
        score += f1[number] if answerable[number] else -1
        if score > best:
            best, threshold = score, differences[number]
    return best / len(f1), threshold


def test_the_threshold_of_no_answer_is_that_of_squads_script():
    """Prevents a threshold that answers other questions than the official one, and one that is not the best."""
    generator, cases = np.random.default_rng(0), 0
    for count in (1, 2, 5, 40, 200):
        for _ in range(10):
            answerable = generator.random(count) < generator.random()
            f1 = np.where(answerable, generator.random(count).round(1), 0.0)
            rows = np.stack(
                [generator.normal(size=count), generator.normal(size=count), f1, f1, np.ones(count), answerable], axis=1
            )
            numbers = generator.permutation(count)
            found = best_null_threshold(rows, numbers)
            best, wanted = best_f1_thresh(rows[:, 1] - rows[:, 0], f1, answerable)
            score = EVALUATOR.score("qa_v2", Outputs(rows, numbers, found))["f1"]
            assert score == pytest.approx(best)
            cases += wanted is not None
            assert found == wanted if wanted is not None else found < (rows[:, 1] - rows[:, 0]).min()
            every = [*(rows[:, 1] - rows[:, 0]), -99.0]
            assert (
                score >= max(EVALUATOR.score("qa_v2", Outputs(rows, numbers, one))["f1"] for one in every[-9:]) - 1e-9
            )
    assert cases > 20


def test_questions_of_equal_difference_are_answered_together():
    """Prevents a threshold whose F1 no threshold reaches: ties that the script takes one by one."""
    rows = np.array(
        [[1.0, 1.0, 1, 1.0, 5, 1], [1.0, 1.0, 0, 0.0, 6, 0], [1.0, 1.0, 0, 0.0, 7, 0], [1.0, 9.0, 1, 1, 8, 1]]
    )
    found = best_null_threshold(rows, np.arange(4))
    assert found == -1.0  # answering three costs 1, a fourth is no gain
    assert EVALUATOR.score("qa_v2", Outputs(rows, np.arange(4), found))["f1"] == 0.5
    assert best_null_threshold(np.full((2, 6), np.nan), np.arange(2)) == 0.0


def test_thresholds_are_taken_from_the_rows_to_choose_by():
    """Prevents a threshold that was tuned on the rows that are scored."""
    scored = Outputs(np.array([[1.0, 2.0, 1, 1.0, 5, 1], [1.0, 4.0, 0, 0.0, 6, 0]]), np.arange(2))
    choosing = Outputs(np.array([[1.0, 3.5, 1, 1.0, 5, 1], [1.0, 9.0, 0, 0.0, 6, 0]]), np.arange(2))
    assert EVALUATOR.with_threshold(scored, None).threshold == 0
    chosen = EVALUATOR.with_threshold(scored, choosing)
    assert chosen.threshold == 2.5
    assert (EVALUATOR.score("qa_v2", scored)["f1"], EVALUATOR.score("qa_v2", chosen)["f1"]) == (0.5, 1.0)
    assert EVALUATOR.agreement_of(scored, chosen)["agreement"] == 0.5
    features, _ = EVALUATOR.resampling("f1")
    assert features(chosen)[:, 0].tolist() == [1, 1]
    assert not EVALUATOR.has_threshold("qa")


def test_outputs_are_decoded_to_pieces_of_the_context():
    """Prevents offsets of other windows or tokens: logits that point at the labels give the first right answer."""
    rows = squad.windows(30, unanswerable=4, scoring=True)
    batch = squad.collator()(rows)
    logits = torch.zeros(*batch["input_ids"].shape, 2)
    for row, label in enumerate(batch["labels"].tolist()):
        for side, place in enumerate(label):
            logits[row, place, side] = 9.0
    predictions, numbers = EVALUATOR.outputs(logits, batch)
    metrics = EVALUATOR.metrics("qa_v2")(EvalPrediction(predictions, numbers))
    assert metrics == dict.fromkeys(("f1", "exact_match", "HasAns_f1", "HasAns_exact", "NoAns_f1"), 1.0)
    logits[0, -1, 0] = math.nan
    logits[0, 2, 0] = math.inf
    assert np.isnan(EVALUATOR.outputs(logits.fill_(math.nan), batch)[0]).all()


@pytest.mark.parametrize("unanswerable", [0, 4])
def test_scores_do_not_depend_on_the_batches_and_models_are_compared(unanswerable):
    """Prevents padding in an answer's score, and windows of a question that two batches part."""
    rows = squad.windows(20, unanswerable=unanswerable, scoring=True)
    student, teacher = tiny.reader(2, seed=1, **LIVELY), tiny.reader(2, **LIVELY)
    both = [predict(student, "qa", {"": rows}, squad.collator(), batch_size=n)[""] for n in (1, 7)]
    np.testing.assert_allclose(both[0].predictions, both[1].predictions, rtol=1e-5, atol=1e-5)
    assert np.array_equal(both[0].labels, both[1].labels)
    other = predict(teacher, "qa", {"": rows}, squad.collator())[""]
    found = compare_models(teacher, student, "qa", rows, squad.collator(), outputs=(other, both[0]))
    texts = [of_questions(one.predictions, one.labels)[:, 2] for one in (other, both[0])]
    assert found["agreement"] == pytest.approx(np.mean(texts[0] == texts[1]))
    assert found["agreement"] < 1
    assert found["kl"] == pytest.approx(kl_by_hand(teacher, student, rows), rel=1e-4)
    same = compare_models(student, student, "qa", rows, squad.collator())
    assert (same["agreement"], same["kl"]) == (1, pytest.approx(0, abs=1e-6))


@torch.no_grad()
def kl_by_hand(teacher, student, rows):
    """Mean over windows of the mean of KL of start and of end, over allowed positions, window by window."""
    total = 0.0
    for row in rows:
        inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "token_type_ids", "attention_mask")}
        allowed = torch.tensor(row["is_allowed"])
        outputs = [model(**inputs) for model in (teacher, student)]
        for side in ("start_logits", "end_logits"):
            p, q = (getattr(output, side)[0, allowed].double().softmax(-1) for output in outputs)
            total += (p * (p / q).log()).sum().item() / 2
    return total / len(rows)


def test_the_baseline_is_a_sentence_or_no_answer():
    """Prevents a baseline that looks at the answers."""
    assert nearest_sentence("Who sees the dog?", "Birds fly. The cat sees the dog. A dog.") == "The cat sees the dog."
    rows = {
        name: [row[name] for row in squad.windows(12, unanswerable=3, scoring=True)]
        for name in ("question_id", "question", "context", "answers")
    }
    metrics = EVALUATOR.majority("qa_v2", None, rows, None)
    assert (metrics["f1"], metrics["NoAns_f1"], metrics["HasAns_f1"]) == (pytest.approx(1 / 3), 1, 0)
    rows = {
        name: [row[name] for row in squad.windows(12, scoring=True)]
        for name in ("question_id", "question", "context", "answers")
    }
    assert 0 < EVALUATOR.majority("qa", None, rows, None)["f1"] < 1


def test_rows_are_questions_in_the_order_of_the_data():
    """Prevents an answer beside another question: several windows, repeated rows, two answers to one question."""
    texts = Dataset.from_dict({"q": ["a", "a", "a", None], "c": ["x", "x", "x", "y"]})
    rows = Dataset.from_dict({
        "question": ["a", "a", "a", "a", ""], "context": ["x", "x", "x", "x", "y"],
        "question_id": [7, 7, 7, 3, 5], "answers": [["x"], ["x"], ["x"], ["y", "z"], []],
    })  # fmt: skip
    predictions = np.array([[score, NOT_ALLOWED, score > 1, 1, 9, 1] for score in (1.0, 3, 2, 1, 4)])
    predictions[4, 1] = 5  # no answer is likelier
    found = Outputs(predictions, np.array(rows["question_id"]), texts=np.array(list("abcde")))
    scored = EVALUATOR.row_scores(found)
    assert scored.predictions.tolist() == ["b", "d", ""]
    assert EVALUATOR.row_labels(found, rows).tolist() == ["x", "y", ""]
    assert EVALUATOR.own_rows(rows, texts).tolist() == [0, 1, 3]
    assert EVALUATOR.row_lengths(found, np.array([1, 2, 3, 4, 5])).tolist() == [6, 4, 5]
    assert EVALUATOR.row_scores(Outputs(predictions, found.labels)) is None  # of a run of an older version
