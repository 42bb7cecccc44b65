"""Terms on the vectors of texts: each formula against plain float64 loops, and where each term is defined."""

import math

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.losses.embeddings import EmbeddingCosine, EmbeddingMSE, EmbeddingSimilarityKL, similarity_kl
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LayerTerm
from distil_nlp.objective.objective import Objective

ROWS, LENGTH = 7, 5


def normal(seed: int, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(ROWS, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def naive_similarity_kl(student, teacher, temperature) -> float:
    total = 0.0
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i]
        powers = [[math.exp(cosine(v[i], v[j]) / temperature) for j in others] for v in (teacher, student)]
        p, q = ([power / sum(row) for power in row] for row in powers)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_similarity_kl_is_that_of_plain_loops(temperature):
    """Prevents a text that is its own neighbour, and a temperature on one side alone; lengths may differ."""
    student, teacher = normal(0), normal(1, 9)
    wanted = naive_similarity_kl(student.tolist(), teacher.tolist(), temperature)
    assert similarity_kl(student, teacher, temperature).item() == pytest.approx(wanted, rel=1e-9)
    assert similarity_kl(3 * student, student, temperature).item() == pytest.approx(0, abs=1e-12)


def test_similarity_kl_has_a_right_gradient():
    """Prevents a gradient to the teacher, or NaN from the diagonal."""
    student, teacher = normal(0).requires_grad_(), normal(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: similarity_kl(rows, teacher.detach()), student)
    similarity_kl(student, teacher).backward()
    assert teacher.grad is None


def test_wrong_arguments_are_refused():
    """Prevents a silent division by 0, and rows of other texts."""
    with pytest.raises(ValueError, match="temperature above 0"):
        similarity_kl(normal(0), normal(1), 0.0)
    with pytest.raises(ValueError, match="same rows"):
        similarity_kl(normal(0), normal(1)[:3])


def test_cosine_and_mse_are_those_of_plain_loops():
    """Prevents a mean over rows where a sum is promised."""
    student, teacher = normal(0), normal(1)
    pairs = list(zip(student.tolist(), teacher.tolist(), strict=True))
    cosines = sum(1 - cosine(a, b) for a, b in pairs)
    squares = sum(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / LENGTH for a, b in pairs)
    assert EmbeddingCosine().loss(student, teacher, 0.0).item() == pytest.approx(cosines, rel=1e-5)
    assert EmbeddingMSE().loss(student, teacher, 0.0).item() == pytest.approx(squares, rel=1e-5)


def test_vectors_have_the_layers_below_them_and_no_classes():
    """Prevents a softmax over the numbers of a vector, and layer terms that nobody may use with vectors."""
    for name, term in TERMS.items():
        assert term.applies_to("embedding") == (issubclass(term, LayerTerm) or name.startswith("embedding_")), name
    for name in ("soft_target_kl", "hard_label", "logit_mse", "input_gradient"):
        with pytest.raises(UserError, match=f"objective.{name}.*embedding"):
            Objective([TERMS[name]()], "embedding")
    for term in (EmbeddingCosine, EmbeddingMSE, EmbeddingSimilarityKL):
        with pytest.raises(UserError, match="expected embedding / got classification"):
            Objective([term()], "classification")
