"""Terms on how the sequences of a micro-batch lie to each other: against loops over pairs and triplets in float64."""

import math

import pytest
import torch
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.rkd import RKDAngle, RKDDistance, rkd_angle, rkd_distance
from distil_nlp.losses.similarity import PKT, SimilarityPreserving, pkt, similarity_preserving
from distil_nlp.objective import ModelShape
from tests.helpers.relations import assert_learns, assert_same, assert_zero_and_still, normal, trained
from tests.helpers.training import curve

TERMS = [RKDDistance, RKDAngle, SimilarityPreserving, PKT]


def length(x: Tensor) -> Tensor:
    return sum(x * x).sqrt()


def huber(x: Tensor, y: Tensor) -> Tensor:
    gap = (x - y).abs()
    return gap**2 / 2 if gap <= 1 else gap - 0.5


def naive_distance(student: Tensor, teacher: Tensor) -> Tensor:
    n = len(student)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    means = [sum(length(one[i] - one[j]) for i, j in pairs) / len(pairs) for one in (student, teacher)]
    total = 0.0
    for i, j in pairs:
        ours, theirs = (length(one[i] - one[j]) / mean for one, mean in zip((student, teacher), means, strict=True))
        total = total + huber(ours, theirs)
    return total / len(pairs)


def naive_angle(student: Tensor, teacher: Tensor) -> Tensor:
    n = len(student)
    triplets = [(i, j, k) for i in range(n) for j in range(n) for k in range(n) if len({i, j, k}) == 3]
    total = student.sum() * 0.0
    for i, j, k in triplets:
        both = [(one[i] - one[j], one[k] - one[j]) for one in (student, teacher)]
        ours, theirs = (sum(x * y) / length(x) / length(y) for x, y in both)
        total = total + huber(ours, theirs)
    return total / max(len(triplets), 1)


def naive_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    n, found = len(student), []
    for one in (student, teacher):
        gram = [torch.stack([sum(one[i] * one[j]) for j in range(n)]) for i in range(n)]
        found.append([row / length(row) for row in gram])
    return sum(sum((x - y) ** 2) for x, y in zip(*found, strict=True)) / n**2


def naive_pkt(student: Tensor, teacher: Tensor) -> Tensor:
    n, found = len(student), []
    for one in (student, teacher):
        kernel = [[(1 + sum(x * y) / length(x) / length(y)) / 2 for y in one] for x in one]
        found.append(
            [[kernel[i][j] / sum(kernel[i][k] for k in range(n) if k != i) for j in range(n)] for i in range(n)]
        )
    q, p = found
    return sum(p[i][j] * (p[i][j] / q[i][j]).log() for i in range(n) for j in range(n) if i != j) / n


LOSSES = [
    pytest.param(rkd_distance, naive_distance, id="distance"),
    pytest.param(rkd_angle, naive_angle, id="angle"),
    pytest.param(similarity_preserving, naive_similarity, id="similarity"),
    pytest.param(pkt, naive_pkt, id="pkt"),
]


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@pytest.mark.parametrize(("rows", "narrow", "wide"), [(5, 4, 4), (6, 2, 7), (3, 8, 3)])
def test_loss_is_its_definition(loss, naive, rows, narrow, wide):
    """The diagonal counted, or a mean over rows² instead of pairs, would look like a loss and be another."""
    teacher = normal(rows, wide, seed=2)
    student = normal(rows, narrow, seed=1)
    student[0] *= 30  # far out, where Huber is linear
    assert_same(lambda s: loss(s, teacher.float()), lambda s: naive(s, teacher), student)


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
def test_slopes_are_those_of_differences(loss, naive):
    teacher = normal(4, 5, seed=2)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), normal(4, 3, seed=1).requires_grad_())


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
def test_loss_is_zero_where_the_relations_agree(loss, naive):
    """A student that is the teacher, turned and scaled, has learned all there is to learn."""
    states = normal(6, 4, seed=1)
    turned = 3 * states @ torch.linalg.qr(normal(4, 4, seed=2)).Q
    assert_zero_and_still(lambda s: loss(s, states), states)
    assert loss(turned, states).item() == pytest.approx(0, abs=1e-9)
    assert loss(normal(6, 4, seed=3), states).item() > 1e-3


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_distances_and_angles_are_blind_to_a_shift(loss):
    states = normal(5, 4, seed=1)
    assert loss(states + 7, states).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("collapsed", ["student", "teacher", "both", "zero", "two alike"])
def test_states_that_coincide_have_a_finite_gradient(loss, naive, rows, collapsed):
    """√ has no slope at 0, and no angle at a point that is its own neighbour: NaN in the gradient alone."""
    student, teacher = normal(rows, 4, seed=1).float(), normal(rows, 3, seed=2).float()
    if collapsed in ("student", "both"):
        student = torch.ones_like(student)
    if collapsed in ("teacher", "both"):
        teacher = torch.ones_like(teacher)
    if collapsed == "zero":
        student = torch.zeros_like(student)
    if collapsed == "two alike":
        student[1] = student[0]
    student.requires_grad_()
    teacher.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 100
    assert teacher.grad is None


def test_opposite_states_have_a_finite_divergence():
    """A student that gives probability 0 where the teacher does not would be infinitely far."""
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    value = pkt(student, torch.ones(3, 2))
    value.backward()
    assert 1 < value.item() < 20
    assert student.grad.isfinite().all()


def test_two_rows_are_always_as_far_from_each_other_and_have_no_angle():
    student, teacher = normal(2, 4, seed=1), normal(2, 4, seed=2)
    assert rkd_distance(student, teacher).item() == pytest.approx(0, abs=1e-12)
    assert rkd_angle(student, teacher).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
def test_other_numbers_of_rows_are_an_error(loss, naive):
    """Sequences of another batch have no relations to compare."""
    with pytest.raises(ValueError, match=r"the same rows on both sides / got student \(4, 2\), teacher \(3, 2\)"):
        loss(torch.zeros(4, 2), torch.zeros(3, 2))


@pytest.mark.parametrize(("loss", "naive"), LOSSES)
def test_products_are_fp32_under_autocast_and_of_halves(loss, naive):
    """Autocast would round the operands of a matrix product to bfloat16."""
    student, teacher = normal(6, 8, seed=1).bfloat16(), normal(6, 4, seed=2).bfloat16()
    plain = loss(student.float(), teacher.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(student, teacher) == plain
    assert plain.dtype == torch.float32


@pytest.mark.parametrize(("kind", "width"), [("mlm", 32), ("mlm", 16), ("classification", 16), ("regression", 16)])
def test_terms_train(tmp_path, kind, width):
    """On ragged rows, of a student as wide as its teacher and of a narrower one; nothing is projected."""
    run = trained(tmp_path, [term() for term in TERMS], kind, width)
    assert not run.objective.projections()


@pytest.mark.parametrize("term", TERMS)
def test_a_term_learns_by_itself(tmp_path, term):
    """A term whose gradient pointed the wrong way would still be finite."""
    assert_learns(tmp_path, term())


def test_micro_batches_of_one_sequence_take_no_part(tmp_path):
    run = trained(tmp_path, [term() for term in TERMS], "classification", 16, batch=1)
    assert all(curve(run, term.name) == [] for term in TERMS)
    assert all(math.isfinite(one["grad_norm"]) for one in run.state.log_history if "grad_norm" in one)


@pytest.mark.parametrize("term", TERMS)
def test_the_embedding_of_cls_is_refused(term):
    """It is the same in every sequence: all distances are 0."""
    with pytest.raises(UserError, match=rf"objective.{term.name}.layers: expected blocks / got embeddings"):
        term(layers=[["embeddings", "embeddings"]]).bind("mlm", ModelShape(4, 8, 2), ModelShape(2, 8, 2))
