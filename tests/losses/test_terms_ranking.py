"""Terms on the scores of a query's documents: each formula against plain float64 loops, and where each is defined."""

import math

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import hard_relevance
from distil_nlp.losses.ranking import ListwiseKL, MarginMSE, listwise_kl, margin_mse
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LayerTerm, OutputTerm
from distil_nlp.objective.objective import Objective

QUERIES = [4, 4, 4, 1, 2, 2, 2, 2, 9]
RELEVANCE = [1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0, math.nan, math.nan]
"""Grades, a query with one document, documents without a label."""


def normal(seed: int) -> torch.Tensor:
    return torch.randn(len(QUERIES), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def places() -> list[list[int]]:
    return [[i for i, one in enumerate(QUERIES) if one == query] for query in sorted(set(QUERIES))]


def naive_margin_mse(student, teacher) -> tuple[float, int]:
    total, pairs = 0.0, 0
    for group in places():
        for i in group:
            for j in group:
                if RELEVANCE[i] > RELEVANCE[j]:
                    total += ((student[i] - student[j]) - (teacher[i] - teacher[j])) ** 2
                    pairs += 1
    return total, pairs


def naive_listwise_kl(student, teacher, temperature) -> float:
    total = 0.0
    for group in places():
        powers = [[math.exp(scores[i] / temperature) for i in group] for scores in (teacher, student)]
        p, q = ([power / sum(row) for power in row] for row in powers)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total * temperature**2


def test_margin_mse_is_that_of_plain_loops():
    """Prevents pairs of two queries, of equal grades, or without a label; and a pair that counts in both orders."""
    student, teacher = normal(0), normal(1)
    wanted, pairs = naive_margin_mse(student.tolist(), teacher.tolist())
    assert pairs == 5
    found = margin_mse(student, teacher, double(RELEVANCE), double(QUERIES))
    assert found.item() == pytest.approx(wanted, rel=1e-9)
    shifted = teacher + double(QUERIES)  # another number for each query, of which no difference knows
    assert margin_mse(shifted, teacher, double(RELEVANCE), double(QUERIES)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_listwise_kl_is_that_of_plain_loops(temperature):
    """Prevents a softmax over a batch, and a temperature on one side alone."""
    student, teacher = normal(0), normal(1)
    wanted = naive_listwise_kl(student.tolist(), teacher.tolist(), temperature)
    assert listwise_kl(student, teacher, double(QUERIES), temperature).item() == pytest.approx(wanted, rel=1e-9)
    shifted = teacher + double(QUERIES)
    assert listwise_kl(shifted, teacher, double(QUERIES), temperature).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        lambda student, teacher: margin_mse(student, teacher, double(RELEVANCE), double(QUERIES)),
        lambda student, teacher: listwise_kl(student, teacher, double(QUERIES), 2.0),
    ],
)
def test_gradients_are_right_and_the_students_own(loss):
    """Prevents a gradient to the teacher, or NaN from documents of other queries."""
    student, teacher = normal(0).requires_grad_(), normal(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: loss(scores, teacher.detach()), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


def test_relevance_is_learned_document_by_document():
    """Prevents the number of the query from being read as a label, and a mean where a sum is promised."""
    labels = double([[1.0, 7.0], [0.0, 7.0], [0.25, 8.0]])
    scores = double([[0.3], [-1.2], [2.0]])
    expected = 0.0
    for (score,), (grade, _) in zip(scores.tolist(), labels.tolist(), strict=True):
        probability = 1 / (1 + math.exp(-score))
        expected -= grade * math.log(probability) + (1 - grade) * math.log(1 - probability)
    assert hard_relevance(scores, labels).item() == pytest.approx(expected, rel=1e-9)


def test_wrong_arguments_are_refused():
    """Prevents a silent division by 0, and scores of other documents."""
    with pytest.raises(ValueError, match="temperature above 0"):
        listwise_kl(normal(0), normal(1), double(QUERIES), 0.0)
    with pytest.raises(ValueError, match="same shape"):
        margin_mse(normal(0), normal(1)[:3], double(RELEVANCE), double(QUERIES))


def test_scores_have_the_layers_below_them_and_no_classes():
    """Prevents a softmax over the single score of a document, and terms of queries where there are none."""
    own = {"margin_mse", "listwise_kl", "hard_label", "logit_mse"}
    for name, term in TERMS.items():
        assert term.applies_to("ranking") == (issubclass(term, LayerTerm) or name in own), name
    for name in ("soft_target_kl", "input_gradient", "r_drop", "embedding_cosine"):
        assert issubclass(TERMS[name], OutputTerm) or name == "input_gradient"
        with pytest.raises(UserError, match=f"objective.{name}.*ranking"):
            Objective([TERMS[name]()], "ranking")
    for term in (MarginMSE, ListwiseKL):
        with pytest.raises(UserError, match="expected ranking / got regression"):
            Objective([term()], "regression")
