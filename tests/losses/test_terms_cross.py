"""Terms that find out by themselves which layers belong together: the earth mover's distance, and ALP-KD."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from distil_nlp.losses.alp import ALPKD, alp_kd
from distil_nlp.losses.emd import HiddenEMD, emd, layer_costs, transport_plan
from distil_nlp.objective import ModelShape
from distil_nlp.signals.types import Signals
from tests.helpers.relations import RAGGED, assert_learns, assert_same, assert_zero_and_still, normal, trained

TERMS = [ALPKD, HiddenEMD]
SIZES = [(4, 2), (5, 3), (6, 6), (12, 6)]


def cheapest(costs: Tensor) -> tuple[float, Tensor]:
    """(the least cost, its plan) between uniform masses, by linear programming."""
    many, few = costs.shape
    rows = np.kron(np.eye(many), np.ones(few))
    columns = np.kron(np.ones(many), np.eye(few))
    masses = np.concatenate([np.full(many, 1 / many), np.full(few, 1 / few)])
    found = linprog(costs.numpy().ravel(), A_eq=np.concatenate([rows, columns]), b_eq=masses)
    return found.fun, torch.from_numpy(found.x.reshape(many, few))


def problems(many: int, few: int, seed: int = 1) -> Tensor:
    """Of no structure, and of layers that lie by depth."""
    depth = (torch.arange(many)[:, None] / many - torch.arange(few) / few).abs()
    return torch.cat([normal(4, many, few, seed=seed) ** 2, depth + 0.1 * normal(4, many, few, seed=seed).abs()])


# The earth mover's distance ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("many", "few"), SIZES)
def test_emd_is_nearly_the_least_of_all_plans(many, few):
    """Prevents a mere mean of the costs, which is what a plan that is too soft gives."""
    costs = problems(many, few)
    for one in costs:
        least, _ = cheapest(one)
        assert least - 1e-9 <= emd(one[None]).item() <= least + 0.01 * one.mean()
        assert emd(one[None]) < 0.9 * one.mean()


@pytest.mark.parametrize(("many", "few"), SIZES)
def test_plans_move_all_masses(many, few):
    """Prevents a cheap plan that leaves a layer out."""
    plan = transport_plan(problems(many, few).float() * 1e3)
    torch.testing.assert_close(plan.sum(-1), torch.full((8, many), 1 / many))
    torch.testing.assert_close(plan.sum(-2), torch.full((8, few), 1 / few))
    assert plan.min() > -1e-7


def test_the_gradient_of_emd_is_the_cheapest_plan():
    """Prevents a gradient through the search, and one of another plan."""
    costs = torch.tensor([[[0.1, 2.0], [0.3, 1.0], [1.5, 0.2], [3.0, 0.4]]], dtype=torch.float64).requires_grad_()
    emd(costs).backward()
    _, plan = cheapest(costs.detach()[0])
    torch.testing.assert_close(costs.grad[0], plan, atol=1e-3, rtol=0)


def test_problems_are_solved_each_by_itself():
    """Prevents a plan of the micro-batch, whose value would depend on its other sequences, and 0 / 0 of a filler."""
    costs = problems(4, 2).float()
    alone = sum(emd(one[None]) for one in costs)
    torch.testing.assert_close(emd(torch.cat([costs, torch.zeros(1, 4, 2)])), alone)
    assert emd(torch.zeros(2, 4, 2)) == 0


def test_emd_is_zero_for_the_same_layers_in_any_order():
    layers = [normal(3, 5, seed=seed) for seed in range(4)]

    def loss(states):
        return emd(layer_costs(list(states), [layers[i] for i in (2, 0, 3, 1)]).mean(0, keepdim=True))

    assert_zero_and_still(loss, torch.stack(layers))
    assert loss(torch.stack(layers) + 1) > 0.5


def test_costs_are_their_definition():
    """Prevents sides that are swapped, which has the same shape where depths are equal."""
    teacher = [normal(4, 3, seed=seed) for seed in (5, 6, 7)]
    weights = normal(4, 3, 2, seed=9)

    def naive(*student):
        total = 0.0
        for row in range(4):
            for i in range(3):
                for j in range(2):
                    total = total + weights[row, i, j] * sum((student[j][row] - teacher[i][row]) ** 2) / 3
        return total

    def loss(*student):
        return (weights * layer_costs(student, teacher)).sum()

    assert_same(loss, naive, normal(4, 3, seed=1), normal(4, 3, seed=2))
    with pytest.raises(ValueError, match=r"\(5, 7\).*\(5, 1\)"):
        layer_costs([torch.zeros(5, 7)], [torch.zeros(5, 1)])


def test_hidden_emd_is_of_each_sequences_own_tokens():
    """Prevents a cost that falls with padding, or with a sequence's length."""
    term, places = HiddenEMD(), RAGGED.flatten().nonzero().flatten()
    term.bind("mlm", ModelShape(4, 3, 1), ModelShape(2, 3, 1))
    batch = {"rows": {"all": places}, "input_ids": RAGGED.long()}
    student = {(block, "all"): (normal(8, 3, seed=block) + 3 * block).requires_grad_() for block in range(2)}
    teacher = {(block, "all"): normal(8, 3, seed=10 + block) + block for block in range(4)}
    student, teacher = Signals(hidden=student), Signals(hidden=teacher)
    found, expected = term.sum(student, teacher, batch, 0.0), 0.0
    found.backward()
    for tokens in (slice(0, 5), slice(5, 8)):
        ours, theirs = ([one[tokens] for one in signals.hidden.values()] for signals in (student, teacher))
        costs = torch.stack([torch.stack([(s - t).square().mean() for s in ours]) for t in theirs])
        least, plan = cheapest(costs.detach())
        expected += least
        for j, s in enumerate(ours):
            slope = sum(plan[i, j] * 2 * (s - t) / s.numel() for i, t in enumerate(theirs)).detach()
            torch.testing.assert_close(student.hidden[j, "all"].grad[tokens], slope, atol=1e-3, rtol=0)
    assert found.item() == pytest.approx(expected, rel=0.01)


# ALP-KD --------------------------------------------------------------------------------------------------------


def naive_alp(student: Tensor, teacher: Tensor) -> Tensor:
    total = 0.0
    for s, layers in zip(student, teacher, strict=True):
        scores = [sum(s * layer).exp() for layer in layers]
        combined = sum(score * layer for score, layer in zip(scores, layers, strict=True)) / sum(scores)
        total = total + sum((s - combined) ** 2) / len(s)
    return total


@pytest.mark.parametrize(("rows", "layers", "width"), [(5, 4, 3), (3, 3, 3), (2, 1, 6)])
def test_alp_is_its_definition(rows, layers, width):
    """Prevents weights over rows or widths, and a gradient that leaves the weights out."""
    teacher = normal(rows, layers, width, seed=2)
    assert_same(lambda s: alp_kd(s, teacher.float()), lambda s: naive_alp(s, teacher), normal(rows, width, seed=1))
    assert torch.autograd.gradcheck(lambda s: alp_kd(s, teacher), normal(rows, width, seed=1).requires_grad_())


def test_alp_is_zero_where_the_student_is_its_own_combination():
    states = normal(4, 3, seed=1)
    assert_zero_and_still(lambda s: alp_kd(s, states[:, None].expand(-1, 5, -1)), states)
    student = 30 * torch.eye(3, dtype=torch.float64)
    assert alp_kd(student, student.expand(3, 3, 3)).item() < 1e-9, "one layer has all the weight"


def test_alp_of_other_shapes_is_an_error_and_its_products_are_fp32():
    with pytest.raises(ValueError, match=r"student \(5, 7\), teacher \(5, 1\)"):
        alp_kd(torch.zeros(5, 7), torch.zeros(5, 4, 1))
    student, teacher = normal(8, 6, seed=1).float(), normal(8, 4, 6, seed=2).float().requires_grad_()
    plain = alp_kd(student.requires_grad_(), teacher)
    plain.backward()
    assert teacher.grad is None
    with torch.autocast("cpu", torch.bfloat16):
        assert alp_kd(student, teacher) == plain


def test_alp_is_the_mean_over_the_students_blocks():
    term = ALPKD()
    term.bind("mlm", ModelShape(3, 4, 1), ModelShape(2, 4, 1))
    student = Signals(hidden={(block, "cls"): normal(5, 4, seed=block) for block in range(2)})
    teacher = Signals(hidden={(block, "cls"): normal(5, 4, seed=10 + block) for block in range(3)})
    stacked = torch.stack(list(teacher.hidden.values()), 1)
    expected = sum(naive_alp(one, stacked) for one in student.hidden.values()) / 2
    torch.testing.assert_close(term.sum(student, teacher, {}, 0.0), expected)


# Both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TERMS)
def test_all_blocks_are_seen_and_another_width_is_projected(kind):
    """Prevents a recipe's pairs where the term finds its own, and embeddings among the blocks."""
    for width in (8, 6):
        term = kind()
        term.bind("mlm", ModelShape(4, 8, 2), ModelShape(2, width, 2))
        assert {block for block, _ in term.request("teacher").hidden} == {0, 1, 2, 3}
        assert {block for block, _ in term.request("student").hidden} == {0, 1}
        assert len(term.projections()) == (0 if width == 8 else 2)
    with pytest.raises(TypeError, match="layers"):
        kind(layers="last")


@pytest.mark.parametrize(("kind", "width"), [("mlm", 32), ("classification", 16), ("regression", 16)])
def test_terms_train(tmp_path, kind, width):
    trained(tmp_path, [term() for term in TERMS], kind, width)


@pytest.mark.parametrize("kind", TERMS)
def test_a_term_learns_by_itself(tmp_path, kind):
    """Prevents a gradient that points the wrong way and is finite."""
    assert_learns(tmp_path, kind())
